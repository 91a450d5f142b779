"""Commands ``winnow export`` and ``winnow predict``: a trained model for others, and its answers for files."""

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from server_app.cli.config import APP, CommandError, app_folder, make_importable, path_argument
from tasks.files import WriteError, replace_file

if TYPE_CHECKING:
    from server_app.export.trained import TrainedModel

FORMATS = ("safetensors", "state-dict", "torch-export", "torchscript", "onnx")
FOLDER = "export"
EXPORT_EXAMPLE = "example:  winnow export runs/20260131-101500 --format onnx safetensors --licence apache-2.0"
PREDICT_EXAMPLE = "example:  winnow predict runs/20260131-101500 scans/ a.png --output predictions.csv"


def add_parser(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Declare the command lines of both."""
    about = "Write the trained model of a run into a folder of its own, with a manifest and a model card."
    parser = commands.add_parser(
        "export", help="write a trained model for others", description=about, epilog=EXPORT_EXAMPLE
    )
    parser.add_argument("run", metavar="RUN", type=path_argument, help="run directory")
    parser.add_argument(
        "--format",
        nargs="+",
        choices=FORMATS,
        metavar="FORMAT",
        default=["safetensors"],
        help="weights alone: safetensors, state-dict; with preprocessing inside: torch-export, onnx, torchscript, "
        "which torch calls deprecated (default: safetensors)",
    )
    parser.add_argument("--output", metavar="DIR", type=path_argument, help=f"new folder (default: RUN/{FOLDER})")
    parser.add_argument("--licence", metavar="TEXT", default="", help="licence of the model, such as apache-2.0")
    parser.add_argument("--name", metavar="TEXT", default="", help="name of the model (default: that of the run)")
    _add_model_arguments(parser)
    parser.set_defaults(action=export)
    about = "Predict the classes of images, texts or rows of tables with a trained model; prints CSV."
    parser = commands.add_parser("predict", help="predict classes of files", description=about, epilog=PREDICT_EXAMPLE)
    parser.add_argument("run", metavar="RUN", type=path_argument, help="run directory, or folder of winnow export")
    parser.add_argument("files", metavar="FILE", nargs="+", type=path_argument, help="files, or folders of files")
    parser.add_argument("--output", metavar="FILE", type=path_argument, help="write the CSV there")
    _add_model_arguments(parser)
    parser.set_defaults(action=predict)


def _add_model_arguments(parser: argparse.ArgumentParser) -> None:
    about = "best model on validation data, or last (default: best, where there is one)"
    parser.add_argument("--model", choices=("best", "last"), default="", help=about)
    about = "folder with the weights of encoders (default: that of the run)"
    parser.add_argument("--weights-path", metavar="DIR", type=path_argument, help=about)
    parser.add_argument("--app", **APP)


def export(args: argparse.Namespace) -> int:
    """Write the files and print their paths."""
    model = _open(args)
    from server_app.export.exporting import export_model
    from server_app.export.trained import ExportError
    from server_app.report.files import ReportError
    from server_app.report.reading import read_run

    folder = args.output or args.run / FOLDER
    formats = list(dict.fromkeys(args.format))
    try:
        written = export_model(model, read_run(args.run), folder, formats, args.licence, args.name)
    except (ExportError, ReportError, WriteError) as error:
        raise CommandError(str(error)) from error
    for path in written:
        print(path.absolute())
    return 0


def predict(args: argparse.Namespace) -> int:
    """Print or write the predictions; 1 if something could not be predicted, which is said on standard error."""
    model = _open(args)
    from server_app.export.predicting import Failure, as_row, csv_lines, header, predict_files
    from server_app.export.trained import ExportError

    classes, rows, failed, count = model.task.class_names, [header(model.task.class_names)], 0, 0
    try:
        for found in predict_files(model, args.files, model.settings.evaluate.batch_size):
            count += 1
            if isinstance(found, Failure):
                failed += 1
                print(f"winnow predict: {found}", file=sys.stderr, flush=True)
            else:
                rows.append(as_row(found, classes))
            if not args.output:
                sys.stdout.write(csv_lines(rows))
                rows = []
    except ExportError as error:
        raise CommandError(str(error)) from error
    if args.output:
        _write(args.output, csv_lines(rows))
    if failed:
        print(f"winnow predict: {failed} of {count} could not be predicted", file=sys.stderr)
    return 1 if failed else 0


def _write(path: Path, text: str) -> None:
    try:
        replace_file(path, text.encode(errors="surrogateescape"))
    except WriteError as error:
        raise CommandError(str(error)) from error
    print(path.absolute())


def _open(args: argparse.Namespace) -> "TrainedModel":
    """Return the trained model that is named.

    Raises
    ------
    CommandError
        If there is none, or it cannot be built.
    """
    if not args.run.is_dir():
        raise CommandError(f"there is no folder {args.run.absolute()}: name a run directory (winnow runs lists them)")
    make_importable(app_folder(args.app, Path.cwd()))
    from server_app.export.trained import ExportError, open_model
    from server_app.report.files import ReportError
    from server_app.storage.checkpoints import CheckpointError
    from tasks.base import DataError

    try:
        return open_model(args.run, args.model, weights_path=str(args.weights_path or ""))
    except (ExportError, CheckpointError, DataError, ReportError) as error:
        raise CommandError(str(error)) from error
    except (OSError, ValueError) as error:
        raise CommandError(f"{args.run}: the model cannot be read: {error}") from error
