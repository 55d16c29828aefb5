"""The project's one reader and writer of video: files, and folders of numbered images, in blocks of frames.

What a frame is:

- Every frame that the file stores is given once, in the order of presentation, whatever the time stamps
  say: the frames of ``ffmpeg -i FILE -fps_mode passthrough``. So none is doubled or dropped where the
  rate varies, and what an edit list cuts away is not shown.
- Of several video streams the one marked as default counts, then the largest; cover art never does.
- Frames are turned and mirrored as the file's display matrix says. The sample aspect ratio is not
  applied: pixels stay as stored. Interlaced frames stay woven.
- Colours become 8-bit RGB as `atoken.video.colour` says. HDR (PQ, HLG) is not tone-mapped: its code
  values are taken as they are. Alpha is dropped.

A clip that cannot be read to its end raises `atoken.media.MediaError` with the number of frames that
could be read: no grey or repeated picture stands in for a damaged one. Two faults leave no trace:
bytes changed inside a frame may decode to a wrong picture, and where a container does not say how long
it is (MPEG-PS and TS, Y4M, GIF, FLV, and Matroska that was written to a pipe), the file can be cut off
between two frames.
"""

from __future__ import annotations

from atoken.video.clip import Reader, Video, VideoInfo, frame_rate, open_video, read_video
from atoken.video.colour import Colour
from atoken.video.writing import VideoWriter, write_video

__all__ = [
    "Colour",
    "Reader",
    "Video",
    "VideoInfo",
    "VideoWriter",
    "frame_rate",
    "open_video",
    "read_video",
    "write_video",
]
