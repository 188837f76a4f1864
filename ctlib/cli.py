"""The `ctlib` command: recolor your own photographs without opening a notebook."""

import functools
import os
import sys
import warnings
from pathlib import Path
from typing import Annotated

import typer

from ctlib import colorizers, images, lut, methods
from ctlib.classical import palette as palettes
from ctlib.data import registry

RECIPES = (
    "histogram_analogy", "distill", "palettenet", "zhang2016", "zhang2017", "features", "resnet_colorizer",
    "stylization", "stylization_once", "refinement", "exemplar",
)  # fmt: skip
#: what a profile sets for its notebook, none of the training's business
OF_NOTEBOOKS = {"case_side", "counts", "dataset", "draws", "gallery", "long_side", "processes", "sizes", "table_side"}

app = typer.Typer(
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
    help="Color transfer and palette recoloring for your own photographs.",
)
data_app = typer.Typer(no_args_is_help=True, help="Datasets: what is known of them, what is missing, how to get it.")
app.add_typer(data_app, name="data")

Picture = Annotated[Path, typer.Argument(help="a photograph: JPEG, PNG, WebP, TIFF or BMP")]
Reference = Annotated[Path | None, typer.Option("--reference", "-r", help="the picture whose colors are wanted")]
MethodName = Annotated[
    str | None, typer.Option("--method", "-m", help="see `ctlib methods`; default mkl_lab, for a palette chang")
]
Colors = Annotated[str | None, typer.Option("--palette", "-p", help='target colors, dark to light: "#204060 #c08040"')]
Output = Annotated[Path, typer.Option("--output", "-o", help="file to write")]


def _one_line_errors(command):
    """Show what went wrong in one line, with exit code 1; a traceback helps no photographer. Warnings likewise."""

    @functools.wraps(command)
    def wrapped(*args, **kwargs):
        try:
            with warnings.catch_warnings():
                warnings.showwarning = _warn
                warnings.filterwarnings("always", module="ctlib")  # each file of a folder may ask for its own
                return command(*args, **kwargs)
        except typer.Exit:  # a RuntimeError, but a plain answer
            raise
        except KeyboardInterrupt:
            print("ctlib: stopped by hand", file=sys.stderr)
            raise typer.Exit(130) from None
        except (ValueError, OSError, RuntimeError, MemoryError) as error:
            said = " ".join(str(error).split()) or type(error).__name__
            if "allocate memory" in said:  # torch's, which names a line of its own and no remedy
                said = "there is not enough memory; take a smaller picture, side or batch"
            print(f"ctlib: {said}", file=sys.stderr)
            raise typer.Exit(1) from None

    return wrapped


def _warn(message, category, filename, lineno, file=None, line=None) -> None:
    """Ours in one line without the line of code; what other packages tell programmers stays as it is."""
    if issubclass(category, UserWarning) and Path(filename).is_relative_to(Path(__file__).parent):
        print(f"ctlib: {message}", file=sys.stderr)
    else:
        print(warnings.formatwarning(message, category, filename, lineno, line), end="", file=file or sys.stderr)


def _palette_lab(text: str | None):
    return None if text is None else palettes.from_hex(text.replace(",", " ").split())


@app.command()
@_one_line_errors
def recolor(
    source: Picture, output: Output, reference: Reference = None, palette: Colors = None, method: MethodName = None
) -> None:
    """Recolor a photograph. With `--method all`, OUTPUT is a folder that gets one file a method."""
    method = method or ("chang" if palette is not None else "mkl_lab")
    if method != "all":
        images.format_of(output)  # before minutes of work, not after
    picture = images.read(source)
    wanted = images.read(reference) if reference else None
    names = list(methods.METHODS) if method == "all" else [method]
    if method == "all":
        if wanted is None:
            raise ValueError("--method all needs a --reference: most methods take no palette")
        if output.exists() and not output.is_dir():
            raise ValueError(f"{output}: is a file; --method all fills a folder, name another one")
        output.mkdir(parents=True, exist_ok=True)
    for name in names:
        target = output / f"{source.stem}-{name}.png" if method == "all" else output
        print(images.write(target, methods.recolor_uint8(name, picture, wanted, _palette_lab(palette))))


@app.command()
@_one_line_errors
def colorize(
    source: Annotated[Path, typer.Argument(help="a photograph, or a folder of them; only lightness is looked at")],
    output: Annotated[Path, typer.Option("--output", "-o", help="file to write, or folder")],
    method: Annotated[
        str | None,
        typer.Option(
            "--method",
            "-m",
            help=f"{', '.join(colorizers.COLORIZERS)}; default unet, with hints zhang2017, with a reference exemplar",
        ),
    ] = None,
    side: Annotated[int | None, typer.Option(help="the network sees about side x side pixels")] = None,
    temperature: Annotated[
        float | None, typer.Option(help="of zhang2016: 1 is the mean of likely colors, near 0 the likeliest")
    ] = None,
    saturation: Annotated[float | None, typer.Option(help="of unet: below 1 is paler, above bolder")] = None,
    hint: Annotated[list[str] | None, typer.Option(help='of zhang2017: "x,y,#rrggbb" in pixels, repeatable')] = None,
    reference: Reference = None,
    samples: Annotated[
        str | None, typer.Option(help="of exemplar and matching: patches of color they keep, 0 to all")
    ] = None,
    follow: Annotated[
        bool, typer.Option("--follow", help="of exemplar and matching: trust any reference, also an unlike one")
    ] = False,
) -> None:
    """Color gray photographs at their full size. Exit code 1 if a file of a folder had to be skipped.

    With --reference after another picture: exemplar, matching, welsh, superpixels, reinhard_ab.
    """
    if method is None:
        method = "exemplar" if reference is not None else "zhang2017" if hint else "unet"
    knobs = {"temperature": temperature, "saturation": saturation, "reference": reference}
    options = {name: value for name, value in knobs.items() if value is not None}
    if hint:
        options["hints"] = [_hint(text) for text in hint]
    if follow:
        if reference is None:
            raise ValueError("--follow: which reference? name it with --reference")
        if "trust" not in colorizers.get(method).options:
            raise ValueError(f"--follow: {method} does not weigh its reference; exemplar and matching do")
        options["trust"] = None
    if samples is not None:
        options["samples"] = int(samples) if samples.isdecimal() else samples  # "all"; the chain says what is wrong
    report = colorizers.colorize_files(method, source, output, side=side, progress=print, **options)
    if report.in_color or report.skipped or report.unlike:
        print(report, file=sys.stderr)
    raise typer.Exit(1 if report.skipped else 0)


def _hint(text: str) -> tuple[int, int, str]:
    parts = text.replace(" ", "").split(",")
    if len(parts) != 3 or not all(part.lstrip("-").isdigit() for part in parts[:2]):
        raise ValueError(f"hint {text!r}: expected x,y,#rrggbb in pixels from the upper left corner")
    return int(parts[0]), int(parts[1]), parts[2]


@app.command("lut")
@_one_line_errors
def make_lut(
    source: Picture,
    output: Output,
    reference: Reference = None,
    palette: Colors = None,
    method: MethodName = None,
    nodes: Annotated[int, typer.Option(help="grid points an axis")] = 33,
) -> None:
    """Write what a method does to colors as a .cube LUT for photo and video editors."""
    method = method or ("chang" if palette is not None else "mkl_lab")
    if output.suffix.lower() != ".cube":
        raise ValueError(f"{output}: a LUT is written as .cube; name the file {output.stem}.cube")
    picture = images.read(source)
    wanted = images.read(reference) if reference else None
    color_map = methods.fit_uint8(method, picture, wanted, _palette_lab(palette))
    print(lut.save_cube(output, lut.sample(color_map, nodes), title=f"{method} {source.stem}"))


@app.command()
@_one_line_errors
def palette(source: Picture, k: Annotated[int, typer.Option("-k", min=1, max=12, help="number of colors")] = 5) -> None:
    """Print the palette of a photograph, dark to light."""
    print(" ".join(palettes.to_hex(palettes.extract_uint8(images.read(source), k))))


@app.command("methods")
def list_methods() -> None:
    """List every method, and every colorizer."""
    width = max(map(len, methods.METHODS))
    for name, method in methods.METHODS.items():
        print(f"{name:{width}}  {method.family:12}  {method.title}")
    for name, colorizer in colorizers.COLORIZERS.items():
        print(f"{name:{width}}  {'colorizer':12}  {colorizer.title}")


@app.command()
@_one_line_errors
def train(
    recipe: Annotated[str, typer.Argument(help="what to train: " + ", ".join(RECIPES))],
    folder: Annotated[Path, typer.Argument(help="gets checkpoints and weights; an interrupted training goes on there")],
    options: Annotated[
        Path | None, typer.Option("--file", "-f", help="YAML file, e.g. notebooks/profiles/paper/20_...yml")
    ] = None,
    parameter: Annotated[list[str] | None, typer.Option("--parameter", "-p", help="name=value, over the file")] = None,
) -> None:
    """Train a network, on several processes with `torchrun --nproc_per_node N -m ctlib.cli train ...`."""
    import importlib

    import yaml

    if recipe not in RECIPES:
        raise ValueError(f"unknown recipe {recipe!r}; known: {', '.join(RECIPES)}")
    module = importlib.import_module(f"ctlib.recipes.{recipe}")
    try:
        values = (yaml.safe_load(options.read_text(encoding="utf-8")) or {}) if options else {}
        if not isinstance(values, dict):
            raise ValueError(f"{options}: must hold `name: value` lines")
        for pair in parameter or []:
            name, equals, value = pair.partition("=")
            if not equals:
                raise ValueError(f"{pair!r}: a parameter is given as name=value")
            values[name] = yaml.safe_load(value)
    except yaml.YAMLError as error:
        raise ValueError(f"not YAML: {error}") from error
    for name in OF_NOTEBOOKS:
        values.pop(name, None)
    _, history = module.run(folder, **values)
    if int(os.environ.get("RANK", 0)) == 0:  # several processes have one result
        print(f"{folder}: step {history[-1]['step']}, loss {history[-1]['loss']:.5f}")


@data_app.command("list")
@_one_line_errors
def data_list() -> None:
    """List the datasets with their license."""
    width = max(map(len, registry.load()))
    for name, dataset in registry.load().items():
        print(f"{name:{width}}  {dataset.title} ({dataset.license})")


@data_app.command("verify")
@_one_line_errors
def data_verify(name: Annotated[str, typer.Argument(help="see `ctlib data list`")]) -> None:
    """Say exactly what of a dataset is missing or broken."""
    report = registry.verify(name)
    print(report)
    raise typer.Exit(0 if report.ok else 1)


@data_app.command("fetch")
@_one_line_errors
def data_fetch(name: Annotated[str, typer.Argument(help="see `ctlib data list`")]) -> None:
    """Download a dataset; a download that broke off goes on where it stopped."""
    print(registry.fetch(name))


if __name__ == "__main__":
    app()
