"""Checks what the imaging package reads: image files of many kinds, names and tables, against tifffile.

check_inputs.py FOLDER COMMAND...: creates the inputs in FOLDER and calls COMMAND, a program with the
tasks of the package.
"""

import json
import struct
import subprocess
import sys
from pathlib import Path

import imagecodecs
import numpy
import tifffile
import zarr
from PIL import Image

NAME = "plate1_B03_F001_Z001_C01.tif"
STACK = "plate1_B03_F001.tif"


def pixels(*shape, dtype="uint16", low=0, high=None):
    high = high or {"uint8": 256, "uint16": 65536, "uint32": 2**32, "int16": 2**15}.get(dtype, 1)
    values = numpy.random.default_rng(sum(shape)).uniform(low, high, shape)
    return values.astype(dtype)


CASES = {}


def case(function):
    CASES[function.__name__] = function
    return function


def grey(dtype, **options):
    """One plane, written with options of tifffile."""

    def create(folder):
        data = pixels(41, 53, dtype=dtype, low=-(2**15) if dtype == "int16" else 0)
        tifffile.imwrite(folder / NAME, data, **{"photometric": "minisblack", **options})
        return data[None, None]

    return create


for name, dtype, options in [
    ("uint8", "uint8", {}),
    ("uint16", "uint16", {}),
    ("uint32", "uint32", {}),
    ("int16", "int16", {}),
    ("float32", "float32", {}),
    ("big_endian", "uint16", {"byteorder": ">"}),
    ("big_endian_float32", "float32", {"byteorder": ">", "compression": "zlib", "predictor": 3}),
    ("bigtiff", "uint16", {"bigtiff": True}),
    ("lzw", "uint16", {"compression": "lzw", "predictor": True}),
    ("deflate", "uint8", {"compression": "zlib", "predictor": True}),
    ("zstd", "uint16", {"compression": "zstd"}),
    ("zstd_predictor", "uint32", {"compression": "zstd", "predictor": True}),
    ("lzma", "uint16", {"compression": "lzma"}),
    ("packbits", "uint8", {"compression": "packbits"}),
    ("float_predictor", "float32", {"compression": "zstd", "predictor": 3}),
    ("tiles", "uint16", {"tile": (16, 32)}),
    ("tiles_zstd", "int16", {"tile": (32, 16), "compression": "zstd"}),
    ("strips", "uint16", {"rowsperstrip": 7, "compression": "zlib"}),
    ("miniswhite", "uint16", {"photometric": "miniswhite"}),
    ("jpeg2000_uint8", "uint8", {"compression": "jpeg2000"}),
    ("jpeg2000_uint16", "uint16", {"compression": "jpeg2000"}),
    ("jpeg2000_int16", "int16", {"compression": "jpeg2000"}),
    ("jpeg2000_strips", "uint16", {"compression": "jpeg2000", "rowsperstrip": 7}),
    ("jpeg2000_tiles", "uint16", {"compression": "jpeg2000", "tile": (16, 32)}),
    ("jpeg2000_aperio", "uint16", {"compression": 33003, "tile": (32, 32)}),
    ("jpeg2000_33005", "uint8", {"compression": 33005}),
    ("tiles_predictor", "uint16", {"tile": (16, 32), "compression": "zlib", "predictor": 2}),
    ("tiles_float_predictor", "float32", {"tile": (16, 32), "compression": "lzw", "predictor": 3}),
    ("big_endian_predictor", "uint16", {"byteorder": ">", "compression": "zlib", "predictor": 2}),
    ("big_endian_bigtiff", "uint32", {"byteorder": ">", "bigtiff": True, "tile": (16, 16)}),
]:
    CASES[name] = grey(dtype, **options)


@case
def multipage(folder):
    data = pixels(5, 24, 32)
    tifffile.imwrite(folder / "plate1_B03_F001_C01.tif", data, photometric="minisblack")
    return data[None]


@case
def imagej_hyperstack(folder):
    data = pixels(3, 2, 24, 32)
    metadata = {"axes": "ZCYX", "spacing": 1.5, "unit": "um"}
    tifffile.imwrite(folder / STACK, data, imagej=True, resolution=(4.0, 4.0), metadata=metadata)
    return data.swapaxes(0, 1), {"pixel": 0.25, "z": 1.5}


@case
def imagej_float(folder):
    data = pixels(4, 24, 32, dtype="float32")
    tifffile.imwrite(folder / STACK, data, imagej=True, metadata={"axes": "ZYX"})
    return data[None]


@case
def imagej_one_page(folder):
    """As files above 4 GiB: one page, and the other planes behind it."""
    data = pixels(3, 2, 24, 32)
    description = "ImageJ=1.11a\nimages=6\nchannels=2\nslices=3\nhyperstack=true\n"
    tifffile.imwrite(
        folder / STACK, data, description=description, metadata=None, truncate=True, photometric="minisblack"
    )
    with tifffile.TiffFile(folder / STACK) as file:
        assert len(file.pages) == 1
    return data.swapaxes(0, 1)


@case
def one_page_of_tifffile(folder):
    data = pixels(3, 24, 32)
    tifffile.imwrite(folder / "plate1_B03_F001_C01.tif", data, truncate=True, photometric="minisblack")
    return data[None]


@case
def two_samples(folder):
    """Two channels side by side in each pixel."""
    data = pixels(24, 32, 2)
    tifffile.imwrite(folder / STACK, data, photometric="minisblack", planarconfig="contig")
    return data.transpose(2, 0, 1)[:, None]


@case
def axes_of_tifffile(folder):
    data = pixels(2, 3, 24, 32)
    tifffile.imwrite(folder / STACK, data, metadata={"axes": "CZYX"}, photometric="minisblack")
    return data


@case
def palette(folder):
    data = pixels(24, 32, dtype="uint8")
    colormap = pixels(3, 256)
    tifffile.imwrite(folder / NAME, data, photometric="palette", colormap=colormap)
    return data[None, None]


@case
def ome_set(folder):
    """Each file has one channel, and the description of both."""
    data = pixels(2, 24, 32)
    ids = ["urn:uuid:00000000-0000-0000-0000-00000000000" + str(index) for index in (1, 2)]
    names = [f"plate1_B03_F001_C0{index}.ome.tif" for index in (1, 2)]
    parts = "".join(
        f'<TiffData FirstC="{index}" IFD="0" PlaneCount="1"><UUID FileName="{name}">{uuid}</UUID></TiffData>'
        for index, (name, uuid) in enumerate(zip(names, ids))
    )
    text = (
        '<?xml version="1.0" encoding="UTF-8"?><OME xmlns="http://www.openmicroscopy.org/Schemas/OME/2016-06">'
        '<Image ID="Image:0"><Pixels ID="Pixels:0" DimensionOrder="XYCZT" Type="uint16" SizeX="32" SizeY="24" '
        'SizeC="2" SizeZ="1" SizeT="1" PhysicalSizeX="0.5"><Channel ID="C:0"/><Channel ID="C:1"/>'
        f"{parts}</Pixels></Image></OME>"
    )
    for name, plane in zip(names, data):
        tifffile.imwrite(folder / name, plane, description=text, metadata=None)
    return data[:, None], {"pixel": 0.5}


def ome(data, axes, compression=None, **metadata):
    def create(folder):
        path, metadata_of_file = folder / "plate1_B03_F001.ome.tif", {"axes": axes, **metadata}
        tifffile.imwrite(path, data, metadata=metadata_of_file, photometric="minisblack", compression=compression)
        sizes = {"pixel": metadata.get("PhysicalSizeX"), "z": metadata.get("PhysicalSizeZ")}
        return data.transpose([axes.index(axis) for axis in "CZYX"]), sizes

    return create


SIZES = {"PhysicalSizeX": 0.325, "PhysicalSizeXUnit": "µm", "PhysicalSizeY": 0.325, "PhysicalSizeYUnit": "µm"}
CASES["ome_czyx"] = ome(pixels(2, 3, 24, 32), "CZYX", PhysicalSizeZ=1.5, PhysicalSizeZUnit="µm", **SIZES)
CASES["ome_zcyx"] = ome(pixels(3, 2, 24, 32), "ZCYX", **SIZES)
CASES["ome_zstd"] = ome(pixels(2, 3, 24, 32, dtype="float32"), "CZYX", compression="zstd", **SIZES)


@case
def ome_nanometers(folder):
    data = pixels(2, 24, 32)
    metadata = {"axes": "ZYX", "PhysicalSizeX": 108.0, "PhysicalSizeXUnit": "nm"}
    tifffile.imwrite(folder / "plate1_B03_F001_C01.ome.tif", data, metadata=metadata, photometric="minisblack")
    return data[None], {"pixel": 0.108}


def packed(bits):
    """Values of fewer bits than those of their type, rows padded to bytes."""

    def create(folder):
        data = pixels(24, 31) >> (16 - bits)
        rows = ["".join(format(int(value), f"0{bits}b") for value in row) for row in data]
        rows = [row.ljust(-(-len(row) // 8) * 8, "0") for row in rows]
        stored = b"".join(bytes(int(row[start : start + 8], 2) for start in range(0, len(row), 8)) for row in rows)
        (folder / NAME).write_bytes(one_strip(31, 24, bits, stored))
        return data.astype("uint8" if bits <= 8 else "uint16")[None, None]

    return create


def one_strip(width, height, bits, stored, more=()):
    """A TIFF file that tifffile does not write; `more` has values of other tags of type SHORT."""
    longs = {256: width, 257: height, 273: 8, 278: height, 279: len(stored)}
    shorts = {258: bits, 259: 1, 262: 1, 277: 1, **dict(more)}
    tags = sorted(
        [(tag, 4, value) for tag, value in longs.items()] + [(tag, 3, value) for tag, value in shorts.items()]
    )
    stored += b"\0" * (len(stored) % 2)
    entries = b"".join(struct.pack("<HHII", tag, kind, 1, value) for tag, kind, value in tags)
    return b"II*\0" + struct.pack("<I", 8 + len(stored)) + stored + struct.pack("<H", len(tags)) + entries + bytes(4)


for bits in (1, 4, 12, 14):
    CASES[f"packed_{bits}_bits"] = packed(bits)


@case
def reversed_bits(folder):
    data = pixels(24, 32)
    stored = numpy.packbits(numpy.unpackbits(data.view("uint8"), bitorder="little").reshape(-1, 8)).tobytes()
    (folder / NAME).write_bytes(one_strip(32, 24, 16, stored, {266: 2}))
    assert numpy.array_equal(tifffile.imread(folder / NAME), data)
    return data[None, None]


def sparse(no_data=None):
    """Only the first tile is in the file."""

    def create(folder):
        tags = [(42113, "s", 0, no_data, True)] if no_data else []
        tifffile.imwrite(folder / NAME, pixels(64, 64), tile=(16, 16), photometric="minisblack", extratags=tags)
        with tifffile.TiffFile(folder / NAME, mode="r+b") as file:
            page = file.pages[0]
            offsets, lengths = page.dataoffsets, page.databytecounts
            page.tags[324].overwrite([*offsets[:1], *[0] * 15])
            page.tags[325].overwrite([*lengths[:1], *[0] * 15])
        return tifffile.imread(folder / NAME)[None, None]

    return create


CASES["sparse"] = sparse()
CASES["sparse_of_gdal"] = sparse("7")


@case
def planar_samples(folder):
    data = pixels(5, 24, 32)
    tifffile.imwrite(folder / STACK, data, photometric="minisblack", planarconfig="separate", tile=(16, 16))
    return data[:, None]


@case
def metamorph_stack(folder):
    data = pixels(4, 24, 32)
    tags = [(33629, 5, 4, (0, 1) * 4, True)]
    path = folder / "plate1_B03_F001_C01.tif"
    tifffile.imwrite(path, data, truncate=True, metadata=None, photometric="minisblack", extratags=tags)
    return data[None]


@case
def ome_companion(folder):
    """The description is in a file of its own."""
    data = pixels(2, 2, 24, 32)
    names = [f"plate1_B03_F00{index}.ome.tif" for index in (1, 2)]
    start = '<?xml version="1.0" encoding="UTF-8"?><OME xmlns="http://www.openmicroscopy.org/Schemas/OME/2016-06">'
    images = "".join(
        f'<Image ID="Image:{name}"><Pixels ID="P:{name}" DimensionOrder="XYCZT" Type="uint16" SizeX="32" SizeY="24" '
        'SizeC="2" SizeZ="1" SizeT="1" PhysicalSizeX="0.5"><Channel ID="C:0"/><Channel ID="C:1"/>'
        f'<TiffData PlaneCount="2"><UUID FileName="{name}">urn:uuid:{name}</UUID></TiffData></Pixels></Image>'
        for name in names
    )
    (folder / "p.companion.ome").write_text(f"{start}{images}</OME>")
    reference = f'{start}<BinaryOnly MetadataFile="p.companion.ome" UUID="urn:uuid:p"/></OME>'
    for name, planes in zip(names, data):
        tifffile.imwrite(folder / name, planes, description=reference, metadata=None, photometric="minisblack")
    return [planes[:, None] for planes in data], {"pixel": 0.5}


@case
def ome_odd_order(folder):
    data, order = pixels(2, 3, 24, 32), [(1, 2), (0, 0), (1, 0), (0, 2), (1, 1), (0, 1)]
    parts = "".join(f'<TiffData IFD="{index}" FirstC="{c}" FirstZ="{z}"/>' for index, (c, z) in enumerate(order))
    text = (
        '<?xml version="1.0" encoding="UTF-8"?><OME xmlns="http://www.openmicroscopy.org/Schemas/OME/2016-06">'
        '<Image ID="Image:0"><Pixels ID="Pixels:0" DimensionOrder="XYZCT" Type="uint16" SizeX="32" SizeY="24" '
        'SizeC="2" SizeZ="3" SizeT="1" PhysicalSizeX="0.5"><Channel ID="C:0"/><Channel ID="C:1"/>'
        f"{parts}</Pixels></Image></OME>"
    )
    planes = numpy.stack([data[index] for index in order])
    path = folder / "plate1_B03_F001.ome.tif"
    tifffile.imwrite(path, planes, description=text, metadata=None, photometric="minisblack")
    return data, {"pixel": 0.5}


def stitched(write):
    """Two fields side by side, the second further down, and what their image is."""

    def create(folder):
        data = pixels(2, 24, 32)
        for index, (plane, position) in enumerate(zip(data, [(-16.0, 3.0), (0.0, 4.0)])):
            write(folder, index + 1, plane, position)
        whole = numpy.zeros((1, 1, 26, 64), "uint16")
        whole[0, 0, :24, :32], whole[0, 0, 2:, 32:] = data
        return whole, {"pixel": 0.5}, {"stitch": True, "pixel_size_um": 0.5}

    return create


def write_ome(folder, field, plane, position):
    x, y = position
    metadata = {"axes": "YX", "Plane": {"PositionX": [x / 1000], "PositionXUnit": ["mm"], "PositionY": [y]}}
    metadata["Plane"]["PositionYUnit"] = ["µm"]
    tifffile.imwrite(folder / f"plate1_B03_F00{field}_C01.ome.tif", plane, metadata=metadata)


def write_metaxpress(folder, field, plane, position):
    props = "".join(
        f'<prop id="stage-position-{axis}" type="float" value="{value}"/>\n' for axis, value in zip("xy", position)
    )
    text = f"<MetaData>\n<PlaneInfo>\n{props}</PlaneInfo>\n</MetaData>"
    tifffile.imwrite(folder / f"Mix_E07_s{field}_w1.tif", plane, description=text, metadata=None)


def write_micro_manager(folder, field, plane, position):
    text = json.dumps({"XPositionUm": position[0], "YPositionUm": position[1]})
    path = folder / f"screen_1_MMStack_B3-Site_{field - 1}.ome.tif"
    tifffile.imwrite(path, plane, metadata=None, extratags=[(51123, "s", 0, text, True)])


def write_micro_manager_images(folder, field, plane, position):
    folder = folder / f"B3-Site_{field - 1}"
    folder.mkdir()
    entry = {"FileName": "img_000000000_DAPI_000.tif", "XPositionUm": position[0], "YPositionUm": position[1]}
    (folder / "metadata.txt").write_text(json.dumps({"Summary": {}, "FrameKey-0-0-0": entry}))
    tifffile.imwrite(folder / entry["FileName"], plane, metadata=None)


CASES["positions_ome"] = stitched(write_ome)
CASES["positions_metaxpress"] = stitched(write_metaxpress)
CASES["positions_micro_manager"] = stitched(write_micro_manager)
CASES["positions_metadata_txt"] = stitched(write_micro_manager_images)


@case
def ome_series(folder):
    """Two images in a file are two fields."""
    data = [pixels(2, 24, 32), pixels(2, 24, 32, high=100)]
    with tifffile.TiffWriter(folder / "plate1_B03.ome.tif", ome=True) as file:
        for image in data:
            file.write(image, metadata={"axes": "CYX", **SIZES}, photometric="minisblack")
    return [image[:, None] for image in data], {"pixel": 0.325}


@case
def ome_pyramid(folder):
    data = pixels(2, 64, 64)
    with tifffile.TiffWriter(folder / "plate1_B03_F001.ome.tif", ome=True) as file:
        file.write(data, subifds=1, metadata={"axes": "CYX"}, photometric="minisblack")
        file.write(data[:, ::2, ::2], subfiletype=1)
    return data[:, None]


@case
def micro_manager_renamed(folder):
    data = pixels(2, 2, 24, 32)
    path = folder / "screen_1_MMStack_B3-Site_0.ome.tif"
    tifffile.imwrite(
        path, data, metadata={"axes": "ZCYX", "Channel": {"Name": ["DAPI", "GFP"]}}, photometric="minisblack"
    )
    return data.swapaxes(0, 1), {"labels": ["DAPI", "GFP"]}


@case
def resolution_tags(folder):
    data = pixels(24, 32)
    tifffile.imwrite(folder / NAME, data, resolution=(20000.0, 20000.0), resolutionunit="CENTIMETER")
    return data[None, None], {"pixel": 0.5}


@case
def metaxpress_sizes(folder):
    data = pixels(24, 32)
    props = {"x": "0.65", "y": "0.65", "units": "um"}
    props = "".join(
        f'<prop id="spatial-calibration-{key}" type="float" value="{value}"/>\n' for key, value in props.items()
    )
    text = f"<MetaData>\n<PlaneInfo>\n{props}</PlaneInfo>\n</MetaData>"
    tifffile.imwrite(folder / "Mix_E07_s1_w1A1B2C3D4.tif", data, description=text, metadata=None)
    return data[None, None], {"pixel": 0.65}


@case
def rgb(folder):
    data = pixels(24, 32, 3, dtype="uint8")
    tifffile.imwrite(folder / STACK, data, photometric="rgb")
    return data.transpose(2, 0, 1)[:, None], {"labels": ["R", "G", "B"]}, {"rgb_channels": True}


@case
def rgb_planar(folder):
    data = pixels(3, 24, 32, dtype="uint8")
    tifffile.imwrite(folder / STACK, data, photometric="rgb", planarconfig="separate", compression="lzw")
    return data[:, None], {}, {"rgb_channels": True}


@case
def rgb_jpeg2000(folder):
    data = pixels(24, 32, 3, dtype="uint8")
    tifffile.imwrite(folder / STACK, data, photometric="rgb", compression="jpeg2000")
    return data.transpose(2, 0, 1)[:, None], {"labels": ["R", "G", "B"]}, {"rgb_channels": True}


def smooth(*shape):
    """What JPEG is made for."""
    y, x = numpy.mgrid[: shape[0], : shape[1]]
    data = 127 + 60 * numpy.sin(x / 7.3) + 50 * numpy.cos(y / 5.1)
    if len(shape) == 3:
        data = numpy.stack([numpy.roll(data, 5 * index, 0) for index in range(shape[2])], -1)
    return data.round().astype("uint8")


def jpeg(tolerance, **options):
    """JPEG, whose decoders round in different ways."""

    def create(folder):
        data = smooth(41, 53, *options.get("samples", []))
        written = {name: value for name, value in options.items() if name != "samples"}
        tifffile.imwrite(folder / STACK, data, **{"photometric": "minisblack", "compression": "jpeg", **written})
        read = tifffile.imread(folder / STACK).reshape(41, 53, -1).transpose(2, 0, 1)[:, None]
        return read, {"tolerance": tolerance}, {"rgb_channels": "samples" in options}

    return create


CASES["jpeg_strips"] = jpeg(1, rowsperstrip=16)
CASES["jpeg_tiles"] = jpeg(1, tile=(32, 32))
CASES["jpeg_rgb"] = jpeg(1, photometric="rgb", samples=[3], compressionargs={"outcolorspace": "rgb"})
CASES["jpeg_ycbcr"] = jpeg(3, photometric="rgb", samples=[3])
CASES["jpeg_ycbcr_tiles"] = jpeg(3, photometric="rgb", samples=[3], tile=(32, 32))


@case
def jpeg_of_libtiff(folder):
    """With tables that the strips have in common."""
    tags = {278: 16}
    Image.fromarray(smooth(141, 253)).save(folder / NAME, compression="jpeg", quality=90, tiffinfo=tags)
    with tifffile.TiffFile(folder / NAME) as file:
        assert file.pages[0].jpegtables and len(file.pages[0].dataoffsets) > 1
    return tifffile.imread(folder / NAME)[None, None], {"tolerance": 1}


@case
def jpeg_of_libtiff_in_color(folder):
    Image.fromarray(smooth(41, 53, 3)).save(folder / STACK, compression="jpeg", quality=90)
    read = tifffile.imread(folder / STACK).transpose(2, 0, 1)[:, None]
    return read, {"tolerance": 3}, {"rgb_channels": True}


def png(data):
    def create(folder):
        Image.fromarray(data).save(folder / NAME.replace(".tif", ".png"))
        return data[None, None]

    return create


CASES["png_uint8"] = png(pixels(24, 32, dtype="uint8"))
CASES["png_uint16"] = png(pixels(24, 32))


def names(*paths, **options):
    """Files of one plane each, in the order of c and z of one image."""

    def create(folder):
        data = pixels(len(paths), 24, 32)
        for path, plane in zip(paths, data):
            (folder / path).parent.mkdir(parents=True, exist_ok=True)
            tifffile.imwrite(folder / path, plane)
        return data.reshape(options.get("channels", 1), -1, 24, 32), {}, options.get("args", {})

    return create


CASES["names_yokogawa"] = names(
    *(f"p-1_B03_T0001F001L01A0{c}Z0{z}C0{c}.tif" for c in (1, 2) for z in (1, 2)), channels=2
)
CASES["names_metaxpress"] = names("Mix_E07_s1_w10A1B2C3D.tif", "Mix_E07_s1_w20A1B2C3D.tif", channels=2)
CASES["names_imagexpress"] = names(*(f"P/TimePoint_1/ZStep_{z}/P_B03_s1_w1.TIF" for z in (1, 2, 10)))
CASES["names_operetta"] = names(*(f"M 1/Images/r02c03f01p0{z}-ch1sk1fk1fl1.tiff" for z in (1, 2)))
CASES["names_incell"] = names(*(f"B - 3(fld 1 wv {wave}).tif" for wave in ("FITC - FITC", "UV - DAPI")), channels=2)
CASES["names_scanr"] = names("B3--W00015--P00001--Z00000--T00000--DAPI.tif")
CASES["names_cq1"] = names(*(f"W0015F0001T0001Z00{z}C1.tif" for z in (1, 2)))
CASES["names_lower_case"] = names("plate1_b03_f001_z001_c01.tif")
CASES["names_subfolder"] = names(f"cycle1/{NAME}")
CASES["names_pattern"] = names(
    "scan-DAPI-B-3-x.tif",
    "scan-GFP-B-3-x.tif",
    channels=2,
    args={"pattern": r"^scan-(?P<channel>\w+)-(?P<row>[A-P])-(?P<column>\d+)-x\.tif$"},
)


def table(text, encoding):
    def create(folder):
        data = pixels(24, 32)
        tifffile.imwrite(folder / "a.tif", data)
        (folder / "files.csv").write_bytes(text.encode(encoding))
        return data[None, None], {}, {"table": "files.csv"}

    return create


TABLE = "File;Plate;Well;Field;Channel;Note\r\na.tif;p;b03;1;C01;10 µM\r\n;;;;;\r\n"
CASES["table_semicolons"] = table(TABLE, "utf-8-sig")
CASES["table_tabs"] = table(TABLE.replace(";", "\t"), "utf-16")
CASES["table_latin1"] = table(TABLE.replace(";", ","), "latin-1")


REFUSED = {}


def refused(*words, args=None):
    def add(function):
        REFUSED[function.__name__] = (function, words, args or {})
        return function

    return add


@refused("RGB image", "rgb_channels")
def rgb_not_asked_for(folder):
    tifffile.imwrite(folder / NAME, pixels(24, 32, 3, dtype="uint8"), photometric="rgb")


@refused("time points", "time_point")
def time_points(folder):
    tifffile.imwrite(folder / STACK, pixels(3, 24, 32), imagej=True, metadata={"axes": "TYX"})


@refused("2 files, such as scan 7-a.tif; no pattern fits; closest", "argument pattern")
def unknown_names(folder):
    for name in ("scan 7-a.tif", "scan 7-b.tif"):
        tifffile.imwrite(folder / name, pixels(24, 32))


@refused("64-bit floating-point", "32 bits floating-point")
def float64(folder):
    tifffile.imwrite(folder / NAME, pixels(24, 32).astype("float64"))


@refused("32-bit signed", "save it with")
def int32(folder):
    tifffile.imwrite(folder / NAME, pixels(24, 32).astype("int32"))


@refused("complex numbers", "save it with")
def complex_numbers(folder):
    tifffile.imwrite(folder / NAME, pixels(24, 32).astype("complex64"))


@refused("compressed with WebP", "save it with LZW", args={"rgb_channels": True})
def webp(folder):
    tifffile.imwrite(folder / STACK, pixels(24, 32, 3, dtype="uint8"), photometric="rgb", compression="webp")


@refused("JPEG with more than 8 bits", "save it with LZW")
def jpeg_12_bits(folder):
    tifffile.imwrite(folder / NAME, pixels(24, 32) >> 4, compression="jpeg")


@refused("its JPEG 2000 data have other bits", "save it with LZW")
def jpeg2000_32_bits(folder):
    tifffile.imwrite(folder / NAME, pixels(24, 32, dtype="uint32"), compression="jpeg2000")


@refused("high-throughput JPEG 2000", "save it with LZW")
def jpeg2000_high_throughput(folder):
    stored = imagecodecs.htj2k_encode(pixels(24, 32))
    (folder / NAME).write_bytes(one_strip(32, 24, 16, stored, {259: 34712}))


@refused("cannot be decompressed", "replace it")
def jpeg2000_damaged(folder):
    tifffile.imwrite(folder / NAME, pixels(24, 32), compression="jpeg2000")
    data = bytearray((folder / NAME).read_bytes())
    data[data.index(b"\xff\x4f\xff\x51") + 8] = 0x7F
    (folder / NAME).write_bytes(data)


@refused(
    "F1 of well B03 has no position, because", "reference frame", "positions", "field_columns", args={"stitch": True}
)
def positions_without_unit(folder):
    for field in (1, 2):
        metadata = {"axes": "YX", "Plane": {"PositionX": [field], "PositionY": [0]}}
        tifffile.imwrite(folder / f"plate1_B03_F{field}_C01.ome.tif", pixels(24, 32), metadata=metadata)


@refused("because the files of the fields F1 and F2 state the same position", args={"stitch": True})
def positions_that_are_zero(folder):
    for field in (1, 2):
        write_ome(folder, field, pixels(24, 32), (0, 0))
        (folder / f"plate1_B03_F00{field}_C01.ome.tif").rename(folder / f"plate1_B03_F{field}_C01.ome.tif")


@refused("ends too early", "replace it")
def truncated(folder):
    tifffile.imwrite(folder / NAME, pixels(24, 32))
    data = (folder / NAME).read_bytes()
    (folder / NAME).write_bytes(data[: len(data) // 2])


@refused("does not begin like a TIFF or PNG file", "replace it")
def other_format(folder):
    (folder / NAME).write_bytes(b"CZI or another format")


@refused("the file is empty")
def empty(folder):
    (folder / NAME).write_bytes(b"")


@refused("its name or the table has one for it")
def stack_in_a_plane(folder):
    tifffile.imwrite(folder / NAME, pixels(3, 24, 32), photometric="minisblack")


@refused("cannot read", "damaged")
def entity_bomb(folder):
    entities = "".join(f'<!ENTITY e{n} "{f"&e{n - 1};" * 10}">' for n in range(1, 10))
    text = f'<?xml version="1.0"?><!DOCTYPE OME [<!ENTITY e0 "a">{entities}]><OME>&e9;</OME>'
    tifffile.imwrite(folder / NAME, pixels(24, 32), description=text, metadata=None)


def call(command, folder, task, parameters):
    args, metadiff = folder / "args.json", folder / "metadiff.json"
    args.write_text(json.dumps(parameters))
    metadiff.unlink(missing_ok=True)
    done = subprocess.run(
        [*command, task, "-j", args, "--metadata-out", metadiff], capture_output=True, text=True, timeout=120
    )
    if done.returncode:
        return None, done.stderr
    return json.loads(metadiff.read_text()), done.stderr


def convert(command, folder, args):
    """Runs the two tasks; returns the image groups, or what the one that failed printed."""
    output = folder / "output"
    given = {"input_paths": [str(folder / "images")], "output_path": str(output), "metadata": {}}
    created, text = call(command, folder, "create_plate", {**given, **args})
    if created is None:
        return None, text
    for image in created["image"]:
        converted, message = call(command, folder, "convert_images", {**given, "component": image, "num_levels": 1})
        if converted is None:
            return None, message
    return [zarr.open_group(output / image, mode="r") for image in created["image"]], text


def check_read(command, folder, create):
    (folder / "images").mkdir(parents=True)
    result = create(folder / "images")
    expected, sizes, args = [*result, {}, {}][:3] if isinstance(result, tuple) else (result, {}, {})
    images, text = convert(command, folder, args)
    if images is None:
        return f"it was refused: {text.strip()}"
    expected = expected if isinstance(expected, list) else [expected]
    if len(images) != len(expected):
        return f"{len(images)} images in place of {len(expected)}"
    for image, data in zip(images, expected):
        found = image["0"][:]
        if found.dtype != data.dtype or found.shape != data.shape:
            return f"{found.dtype} {found.shape} in place of {data.dtype} {data.shape}"
        difference = numpy.abs(found.astype("float64") - data).max()
        if not difference <= sizes.get("tolerance", 0):
            return f"the pixels differ by up to {difference}"
        multiscales = image.attrs["multiscales"][0]
        scale = multiscales["datasets"][0]["coordinateTransformations"][0]["scale"]
        for name, place in {"pixel": -1, "z": -3}.items():
            if sizes.get(name) and abs(scale[place] / sizes[name] - 1) > 1e-6:
                return f"the size {name} is {scale[place]} in place of {sizes[name]}"
        labels = [channel["label"] for channel in image.attrs["omero"]["channels"]]
        if sizes.get("labels", labels) != labels:
            return f"the channels are {labels}"
    if not sizes.get("pixel") and "set the argument pixel_size_um" not in text:
        return "there is no warning that the size of a pixel is unknown"
    return None


def check_refused(command, folder, create, words, args):
    (folder / "images").mkdir(parents=True)
    create(folder / "images")
    images, text = convert(command, folder, args)
    if images is not None:
        return "it was read"
    missing = [word for word in words if word not in text]
    return f"{text.strip()!r} lacks {missing}" if missing or "panicked" in text else None


def main():
    folder, command = Path(sys.argv[1]), sys.argv[2:]
    failures = 0
    for name, create in CASES.items():
        failures += report(name, check_read(command, folder / name, create))
    for name, (create, words, args) in REFUSED.items():
        failures += report(name, check_refused(command, folder / name, create, words, args))
    print(f"{len(CASES)} kinds of input read, {len(REFUSED)} refused, {failures} failures")
    sys.exit(bool(failures))


def report(name, failure):
    if failure:
        print(f"{name}: {failure}")
    return bool(failure)


if __name__ == "__main__":
    main()
