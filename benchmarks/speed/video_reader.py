"""How fast video is read: frames per second of our reader beside plain PyAV and torchcodec, in one run.

    python -m benchmarks.speed.video_reader [--frames 96] [--height 1080] [--width 1920] [--repeats 3]

An H.264 clip (4:2:0, BT.709) of moving texture is made first. All readers may use every core; they take
turns, and the median of the repeats counts. "decoding alone" throws the frames away, so that the
price of the colour conversion is seen: `accurate` pays for exact rounding and interpolated chroma. Plain
PyAV takes BT.601 whatever the tags say: its frames are not the same, the last column says by how much.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from atoken.media import MediaError
from atoken.video import open_video

BLOCK = 16


def main(arguments: list[str] | None = None) -> None:
    """Print a line per reader."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name, default in (("--frames", 96), ("--height", 1080), ("--width", 1920), ("--repeats", 3)):
        parser.add_argument(name, type=int, default=default)
    options = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "clip.mp4"
        write_clip(path, options.frames, options.height, options.width)
        readers: dict[str, Callable[[Path], Iterator[np.ndarray]]] = {
            "decoding alone": decoding_alone,
            "PyAV to_ndarray": plain,
            "ours, accurate": lambda path: open_video(path).blocks(BLOCK),
            "ours, ffmpeg": lambda path: open_video(path, colour="ffmpeg").blocks(BLOCK),
            "torchcodec, ffmpeg": lambda path: open_video(path, reader="torchcodec", colour="ffmpeg").blocks(BLOCK),
        }
        print(f"{options.frames} frames of {options.width}x{options.height}, H.264")
        reference = next(open_video(path).blocks(1)).astype(np.int16)
        for name, reader in list(readers.items()):
            try:
                next(reader(path))
            except MediaError as error:
                print(f"{name:20} {str(error).removeprefix(f'{path}: ')}")
                del readers[name]
        seconds: dict[str, list[float]] = {name: [] for name in readers}
        for _ in range(options.repeats):
            for name, reader in readers.items():
                start = time.perf_counter()
                count = sum(len(block) for block in reader(path))
                seconds[name].append(time.perf_counter() - start)
                if count != options.frames:
                    raise RuntimeError(f"{name} read {count} of {options.frames} frames")
        base = statistics.median(seconds["PyAV to_ndarray"])
        for name, reader in readers.items():
            taken = statistics.median(seconds[name])
            line = f"{name:20} {options.frames / taken:8.1f} frames/s   {base / taken:5.2f} x plain PyAV"
            if name != "decoding alone":
                difference = np.abs(next(reader(path))[:1] - reference).mean()
                line += f"   mean difference from accurate {difference:5.2f} grey levels"
            print(line)


def write_clip(path: Path, frames: int, height: int, width: int) -> None:
    """A texture that moves by 3 pixels a frame, tagged BT.709 and limited range."""
    import av
    from av.video.reformatter import Colorspace

    rng = np.random.default_rng(0)
    coarse = rng.integers(0, 256, (height // 16 + 2, (width + 3 * frames) // 16 + 2, 3), dtype=np.uint8)
    texture = coarse.repeat(16, 0).repeat(16, 1)[:height] // 2 + 64
    texture = (texture + rng.integers(-6, 7, texture.shape)).astype(np.uint8)
    with av.open(str(path), "w") as file:
        stream: Any = file.add_stream("libx264", rate=24, options={"preset": "veryfast"})
        stream.height, stream.width, stream.pix_fmt = height, width, "yuv420p"
        stream.codec_context.colorspace, stream.codec_context.color_range = 1, 1
        for number in range(frames):
            pixels = np.ascontiguousarray(texture[:, 3 * number : 3 * number + width])
            frame = av.VideoFrame.from_ndarray(pixels, format="rgb24")
            frame = frame.reformat(format="yuv420p", src_colorspace=Colorspace.ITU601, dst_colorspace=Colorspace.ITU709)
            file.mux(stream.encode(frame))
        file.mux(stream.encode())


def plain(path: Path) -> Iterator[np.ndarray]:
    """What most scripts do."""
    import av

    with av.open(str(path)) as container:
        container.streams.video[0].thread_type = "AUTO"
        for frame in container.decode(video=0):
            yield frame.to_ndarray(format="rgb24")[None]


def decoding_alone(path: Path) -> Iterator[np.ndarray]:
    """One empty block per frame: the frames themselves are thrown away."""
    import av

    with av.open(str(path)) as container:
        container.streams.video[0].thread_type = "AUTO"
        for _ in container.decode(video=0):
            yield np.empty((1, 0))


if __name__ == "__main__":
    main()
