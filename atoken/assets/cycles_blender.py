"""What runs inside of Blender's own Python: a job in, pictures and depth out. Started by `atoken.assets.cycles`.

    python cycles_blender.py FOLDER

reads ``FOLDER/job.json`` and ends with ``FOLDER/reply.json``. Imports nothing of ours: that Python has bpy 5 and
numpy, and neither torch nor this package.
"""

from __future__ import annotations

import json
import sys
import traceback
from pathlib import Path
from typing import Any

import bpy  # type: ignore[import-not-found]
import numpy as np
from mathutils import Matrix  # type: ignore[import-not-found]

# Of Blender's start-up scene, which TRELLIS's script leaves as it is; linear.
WORLD = (0.05087609, 0.05087609, 0.05087609)
GREY = (0.5019608, 0.5019608, 0.5019608, 1.0)
NOTHING = 1e9  # Blender writes 1e10 where there is no surface
SOLID = {"MESH", "CURVE", "SURFACE", "META", "FONT"}


class RefusedError(Exception):
    """A model or a job that cannot be drawn; one line."""


def main(folder: Path) -> None:
    job = json.loads((folder / "job.json").read_text())
    try:
        reply = work(job, folder)
    except RefusedError as error:
        reply = {"error": str(error)}
    except Exception as error:
        traceback.print_exc()
        # Operators of Blender raise with several lines; the last says what happened.
        reply = {"error": str(error).strip().splitlines()[-1] if str(error).strip() else type(error).__name__}
    (folder / "reply.part").write_text(json.dumps(reply))
    (folder / "reply.part").replace(folder / "reply.json")


def work(job: dict[str, Any], folder: Path) -> dict[str, Any]:
    if bpy.app.version < (5, 0, 0):
        raise RefusedError(f"bpy is {bpy.app.version_string}, of Blender 5 is asked; pip install 'bpy>=5'")
    bpy.ops.wm.read_factory_settings(use_empty=True)
    preferences = bpy.context.preferences
    preferences.system.use_online_access = False
    preferences.filepaths.use_scripts_auto_execute = False
    if job["task"] == "look":
        return {"blender": bpy.app.version_string, "notes": [], "device": chosen(job) or "CPU"}
    read(Path(job["model"]))
    notes = mend_textures(Path(job["model"]).parent, foreign=not job["model"].lower().endswith(".blend"))
    scene = gathered()
    reply: dict[str, Any] = {"blender": bpy.app.version_string, "notes": notes}
    if job["task"] == "export":
        bpy.ops.export_scene.gltf(
            filepath=str(folder / "model.glb"), export_format="GLB", use_active_scene=True, export_animations=False
        )
        return reply
    normalise(scene)
    light(scene)
    reply["device"] = use_cycles(scene, job)
    camera = bpy.data.objects.new("camera", bpy.data.cameras.new("camera"))
    scene.collection.objects.link(camera)
    scene.camera = camera
    for number, view in enumerate(job["cameras"]):
        place(scene, camera, view)
        picture(scene, job, folder / f"colour_{number:04}.png")
        # Depth comes last: the other side counts these files.
        depth(scene, folder / f"depth_{number:04}.npy")
    return reply


def read(path: Path) -> None:
    """Load a model, with the axes that Blender's importers take: y up for glTF and OBJ, z up for the others."""
    name, suffix = str(path), path.suffix.lower()
    if suffix == ".blend":
        bpy.ops.wm.open_mainfile(filepath=name, load_ui=False, use_scripts=False)
        if bpy.data.libraries:
            linked = bpy.data.libraries[0].filepath
            raise RefusedError(f"links to another file ({linked}); make everything local in Blender and save it again")
        return
    readers = {
        ".glb": bpy.ops.import_scene.gltf,
        ".gltf": bpy.ops.import_scene.gltf,
        ".obj": bpy.ops.wm.obj_import,
        ".ply": bpy.ops.wm.ply_import,
        ".stl": bpy.ops.wm.stl_import,
    }
    readers[suffix](filepath=name)


def mend_textures(folder: Path, *, foreign: bool) -> list[str]:
    """Grey in place of each picture that is not there or lies outside of the model's folder; a line for each.

    Args:
        folder: the model's.
        foreign: the model came by an importer, which also packs what it read from elsewhere; a .blend file's packed
            pictures are its own.
    """
    notes = []
    for image in list(bpy.data.images):
        if image.source not in ("FILE", "TILED", "SEQUENCE", "MOVIE") or not image.filepath:
            continue
        path = Path(bpy.path.abspath(image.filepath).replace("<UDIM>", "1001")).resolve()
        inside, there = path.is_relative_to(folder.resolve()), path.is_file()
        # What lay in the model itself is packed, and under its name there is no file.
        if (image.packed_file and not (foreign and there)) if not inside else (image.packed_file or there):
            continue
        notes.append(f"texture {image.filepath} {'is not there' if inside else 'lies outside of the folder'}: grey")
        grey = bpy.data.images.new("grey", 1, 1)
        grey.generated_color = GREY
        image.user_remap(grey)
    return notes


def gathered() -> Any:
    """A scene of its own with all that the loaded one shows: modifiers and instances made into plain meshes."""
    graph = bpy.context.evaluated_depsgraph_get()
    made: dict[Any, Any] = {}
    placed = []
    for instance in graph.object_instances:
        item = instance.object
        if item.type not in SOLID or item.hide_render or not instance.show_self:
            continue
        key = (item.original.name_full, item.data.name_full if item.data else "")
        if key not in made:
            made[key] = bpy.data.meshes.new_from_object(item, preserve_all_data_layers=True, depsgraph=graph)
        placed.append((made[key], instance.matrix_world.copy()))
    scene = bpy.data.scenes.new("atoken")
    for mesh, matrix in placed:
        if not len(mesh.polygons):
            continue
        if not any(mesh.materials) and mesh.color_attributes:
            mesh.materials.clear()
            mesh.materials.append(painted(mesh.color_attributes[0].name))
        copy = bpy.data.objects.new("part", mesh)
        copy.matrix_world = matrix
        scene.collection.objects.link(copy)
    bpy.context.window.scene = scene
    for other in [other for other in bpy.data.scenes if other != scene]:
        bpy.data.scenes.remove(other)
    if not scene.objects:
        raise RefusedError("shows no surface; export the mesh again")
    return scene


def painted(attribute: str) -> Any:
    """Blender's default material with the vertices' colours, which its importers of PLY and OBJ leave unused."""
    material = bpy.data.materials.new("vertex colours")
    material.use_nodes = True
    nodes = material.node_tree.nodes
    colours = nodes.new("ShaderNodeVertexColor")
    colours.layer_name = attribute
    shader = next(node for node in nodes if node.type == "BSDF_PRINCIPLED")
    material.node_tree.links.new(colours.outputs["Color"], shader.inputs["Base Color"])
    return material


def normalise(scene: Any) -> None:
    """Bounding box of all faces centred at 0, its longest side 1."""
    bpy.context.view_layer.update()
    low, high = np.full(3, np.inf), np.full(3, -np.inf)
    for item in scene.objects:
        mesh = item.data
        points = np.empty(3 * len(mesh.vertices), np.float32)
        corners = np.empty(len(mesh.loops), np.int32)
        mesh.vertices.foreach_get("co", points)
        mesh.loops.foreach_get("vertex_index", corners)
        used = points.reshape(-1, 3)[corners].astype(np.float64)
        matrix = np.array(item.matrix_world, np.float64)
        there = used @ matrix[:3, :3].T + matrix[:3, 3]
        low, high = np.minimum(low, there.min(0)), np.maximum(high, there.max(0))
    side = float((high - low).max())
    if not np.isfinite(side) or side <= 0:
        raise RefusedError("has no extent, or vertices that are not finite; remove their faces")
    into_cube = Matrix.Scale(1 / side, 4) @ Matrix.Translation((-(low + high) / 2).tolist())
    for item in scene.objects:
        item.matrix_world = into_cube @ item.matrix_world


def light(scene: Any) -> None:
    """The lights of TRELLIS's data, and the faint grey world."""
    for kind, watts, position, scale in (
        ("POINT", 1000, (4, 1, 6), 1),
        ("AREA", 10000, (0, 0, 10), 100),
        ("AREA", 1000, (0, 0, -10), 1),
    ):
        lamp = bpy.data.objects.new("light", bpy.data.lights.new("light", type=kind))
        lamp.data.energy = watts
        lamp.location, lamp.scale = position, (scale,) * 3
        lamp.visible_camera = False
        scene.collection.objects.link(lamp)
    scene.world = bpy.data.worlds.new("world")
    scene.world.use_nodes = True
    background = next(node for node in scene.world.node_tree.nodes if node.type == "BACKGROUND")
    background.inputs["Color"].default_value = (*WORLD, 1.0)


def use_cycles(scene: Any, job: dict[str, Any]) -> str:
    """Set up the renderer; returns what it runs on."""
    render, cycles = scene.render, scene.cycles
    render.engine = "CYCLES"
    render.resolution_x, render.resolution_y, render.resolution_percentage = job["width"], job["height"], 100
    render.film_transparent = True
    render.use_persistent_data = True
    scene.display_settings.display_device = "sRGB"
    # What Blender 3.0, TRELLIS's, started with.
    scene.view_settings.view_transform = "Filmic"
    scene.view_settings.look = "None"
    cycles.seed = job["seed"]
    cycles.shading_system = False
    cycles.pixel_filter_type = "BOX"
    cycles.diffuse_bounces = cycles.glossy_bounces = 1
    cycles.transparent_max_bounces = cycles.transmission_bounces = 3
    scene.view_layers[0].use_pass_z = True
    scene.view_layers[0].pass_alpha_threshold = 0.5
    scene.compositing_node_group = depth_nodes()
    device = chosen(job)
    cycles.device = "CPU" if device is None else "GPU"
    return device or "CPU"


def chosen(job: dict[str, Any]) -> str | None:
    """The GPU that a job is drawn on, None for the processor."""
    device = gpu() if job["device"] != "cpu" else None
    if device is None and job["device"] == "gpu":
        raise RefusedError("Cycles finds no GPU here; leave the choice to it (auto) or take the CPU (cpu)")
    return device


def gpu() -> str | None:
    preferences = bpy.context.preferences.addons["cycles"].preferences
    for kind in ("OPTIX", "CUDA", "HIP", "METAL", "ONEAPI"):
        try:
            preferences.compute_device_type = kind
        except TypeError:  # this build of Blender has none
            continue
        preferences.refresh_devices()
        found = [device for device in preferences.devices if device.type == kind]
        for device in preferences.devices:
            device.use = device.type == kind
        if found:
            return f"{found[0].name} ({kind})"
    return None


def depth_nodes() -> Any:
    """A compositor that puts depth in place of the picture."""
    group = bpy.data.node_groups.new("depth", "CompositorNodeTree")
    group.interface.new_socket(name="Image", in_out="OUTPUT", socket_type="NodeSocketColor")
    layers, out = group.nodes.new("CompositorNodeRLayers"), group.nodes.new("NodeGroupOutput")
    group.links.new(layers.outputs["Depth"], out.inputs["Image"])
    return group


def place(scene: Any, camera: Any, view: dict[str, Any]) -> None:
    camera.matrix_world = Matrix(view["to_world"])
    camera.data.sensor_fit = "HORIZONTAL"
    camera.data.sensor_width = 32
    camera.data.lens = 32 * view["focal"]
    camera.data.clip_start, camera.data.clip_end = 1e-3, 1e3
    scene.render.pixel_aspect_x, scene.render.pixel_aspect_y = view["pixel"]


def picture(scene: Any, job: dict[str, Any], path: Path) -> None:
    scene.render.use_compositing = False
    scene.cycles.samples, scene.cycles.use_denoising, scene.cycles.filter_width = job["samples"], True, 1
    settings = scene.render.image_settings
    settings.file_format, settings.color_mode, settings.color_depth = "PNG", "RGBA", "8"
    draw(scene, path)


def depth(scene: Any, path: Path) -> None:
    """One ray through the centre of each pixel: the pass is neither averaged nor moved within the pixel."""
    scene.render.use_compositing = True
    scene.cycles.samples, scene.cycles.use_denoising, scene.cycles.filter_width = 1, False, 0.01
    settings = scene.render.image_settings
    settings.file_format, settings.color_mode, settings.color_depth = "OPEN_EXR", "RGB", "32"
    settings.exr_codec = "ZIP"
    aside = path.with_suffix(".exr")
    draw(scene, aside)
    image = bpy.data.images.load(str(aside))
    image.colorspace_settings.name = "Non-Color"
    width, height = image.size
    pixels = np.empty(width * height * image.channels, np.float32)
    image.pixels.foreach_get(pixels)
    bpy.data.images.remove(image)
    aside.unlink()
    # Blender's first row is the lowest.
    z = pixels.reshape(height, width, -1)[::-1, :, 0]
    with path.with_suffix(".part").open("wb") as file:
        np.save(file, np.where(z < NOTHING, z, np.float32(-1)))
    path.with_suffix(".part").replace(path)


def draw(scene: Any, path: Path) -> None:
    scene.render.filepath = str(path)
    bpy.ops.render.render(write_still=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
