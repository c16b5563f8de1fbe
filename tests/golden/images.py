"""Output of transformers' Pillow image processors for every picture under fixtures/images."""

import numpy as np
from PIL import Image
from transformers import CLIPImageProcessorPil, LlavaImageProcessorPil
from transformers.image_utils import load_image

from common import DATA, IMAGES, pixels_as_bytes, relative, write_arrays, write_json

SAMPLES = 2000
SIDES = [168, 224, 336]
EVERY_SIDE = ["photo-300x200.png", "photo-97x211.png", "photo-640x480.jpg", "upscale-41x30.png", "odd-337x336.png"]
EVERY_SIDE += ["one-pixel.png", "tall-1x500.png", "wide-501x1.png", "square-168.png"]
QUIRKS = {"grey-16bit.png": "Pillow clips 16-bit grey at 255 instead of scaling it; expect what grey.png gives"}
JPEG_LIKE = (".jpg", "lossy.webp")


def processors(side):
    sizes = {"size": {"shortest_edge": side}, "crop_size": {"height": side, "width": side}}
    return {"crop": CLIPImageProcessorPil(**sizes), "pad": LlavaImageProcessorPil(do_pad=True, **sizes)}


def opened(path):
    """As in `processor(images=Image.open(path))`: no EXIF turn, transparency laid on white."""
    return Image.open(path)


def loaded(path):
    """As in `apply_chat_template` with a path or address: EXIF turn, an alpha channel simply dropped."""
    return load_image(str(path))


def sampled(array):
    """Value k is element `k * 1000003 mod length` in C order: spread out, and nothing to store beside the values."""
    flat = array.reshape(-1)
    return flat[np.arange(min(SAMPLES, flat.size), dtype=np.int64) * 1_000_003 % flat.size]


def main():
    arrays, cases = {}, []
    for path in sorted(IMAGES.iterdir()):
        ways = {"open": opened(path), "load_image": loaded(path)}
        rgb = {way: np.asarray(CLIPImageProcessorPil().convert_to_rgb(image)) for way, image in ways.items()}
        if rgb["open"].shape == rgb["load_image"].shape and (rgb["open"] == rgb["load_image"]).all():
            ways = {"both": ways["open"]}
            rgb = {"both": rgb["open"]}
        for way, image in ways.items():
            decoded = rgb[way].transpose(2, 0, 1)
            name = f"{path.name}/{way}"
            arrays[f"{name}/decoded"] = sampled(decoded)
            entry = {
                "name": name,
                "image": relative(path),
                "loader": way,
                "exact": not path.name.endswith(JPEG_LIKE),
                "pillow_mode": Image.open(path).mode,
                "width": decoded.shape[2],
                "height": decoded.shape[1],
                "decoded_means": decoded.astype(np.float64).mean((1, 2)).round(6).tolist(),
                "outputs": [],
            } | ({"quirk": QUIRKS[path.name]} if path.name in QUIRKS else {})
            for side in SIDES if path.name in EVERY_SIDE else SIDES[:1]:
                for mode, processor in processors(side).items():
                    values = processor(image, return_tensors="np")["pixel_values"][0]
                    key = f"{name}/{mode}-{side}"
                    arrays[key] = sampled(pixels_as_bytes(values, processor))
                    entry["outputs"].append(
                        {
                            "key": key,
                            "mode": mode,
                            "side": side,
                            "means": values.astype(np.float64).mean((1, 2)).round(7).tolist(),
                            "first_sampled": [round(float(v), 7) for v in sampled(values)[:8]],
                        }
                    )
            cases.append(entry)
    clip = CLIPImageProcessorPil()
    constants = {"image_mean": list(clip.image_mean), "image_std": list(clip.image_std)}
    write_arrays(DATA / "images.safetensors", arrays)
    write_json(DATA / "images.json", constants | {"cases": cases})


if __name__ == "__main__":
    main()
