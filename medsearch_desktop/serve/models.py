"""`medsearch model`: what is registered, whether it is sound, and how models come and go."""

from __future__ import annotations

import argparse
import sys
from functools import partial
from typing import TYPE_CHECKING, Any

from medsearch_desktop import registry
from medsearch_desktop.errors import MedSearchError
from medsearch_desktop.serve.commands import add_command, answer, config_of, one_line

if TYPE_CHECKING:
    from medsearch_desktop.config import Config
    from medsearch_desktop.records import HeldModel

# What a model is to the library, as a person reads it.
_ROLES = {"in use": "in use here", "next": "a switch to it has not ended", "kept": "kept here"}


def add_model_commands(commands: Any) -> Any:
    """Add `model` to the commands of a parser; return its own sub-parsers, for others to add to."""
    help = "list, verify, import, export and remove embedding models"
    model = commands.add_parser("model", help=help, description=help)
    actions = model.add_subparsers(title="commands", metavar="COMMAND", required=True)

    action = partial(add_command, actions)
    action("list", _list, "list the models that are registered")

    verify = action("verify", _verify, "check that models are what their manifest says and that they embed")
    verify.add_argument("model_id", nargs="?", default="", metavar="ID", help="only this one (default: all)")

    bring = action("import", _import, "register a DenseNet121 checkpoint, an ONNX file or a signed bundle")
    bring.add_argument("file", metavar="FILE")
    bring.add_argument("--name", default="", metavar="ID", help="name of the model (default: the file's)")
    bring.add_argument("--origin", default="", metavar="TEXT", help="where the weights come from")
    bring.add_argument("--licence", default="", metavar="TEXT", help="under what terms they may be used")
    bring.add_argument("--size", type=int, metavar="N", help="side of its input in pixels (default: its makers')")
    bring.add_argument(
        "--normalise",
        choices=list(registry.NORMALISATIONS),
        help="how its input is scaled: as for ImageNet, to [-1024, 1024], or from 0 to 1 (default: its makers')",
    )
    bring.add_argument("--trust", default="", metavar="FINGERPRINT", help="accept bundles of this signer from now on")

    export = action("export", _export, "write a model to a bundle, signed with your key, to carry it elsewhere")
    export.add_argument("model_id", metavar="ID")
    export.add_argument("-o", "--output", required=True, metavar="FILE.msmodel")

    remove = action("remove", _remove, "remove an imported model")
    remove.add_argument("model_id", metavar="ID")

    action("key", _key, "show the fingerprint of the key that signs your bundles")
    return actions


def _list(options: argparse.Namespace) -> int:
    config = config_of(options)
    rows, problems = registry.list_all(config)
    held, trouble = _held(config)
    for problem in [*problems, *trouble]:
        print(f"medsearch: {one_line(str(problem))}", file=sys.stderr)
    lines = []
    for row in rows:
        own = held.pop(row["model_id"], None)
        row |= {"registered": True, "role": own.role.value if own else "", "vectors": own.vectors if own else 0}
        states = ["shipped" if row["shipped"] else "imported"]
        states += ["the one of new libraries"] if row["default"] else []
        states += [f"{_ROLES[own.role.value]}, {own.vectors} vectors"] if own else []
        lines += [
            f"{row['model_id']}   {'; '.join(states)}",
            f"    {row['dim']} values from {row['channels']} x {row['size']} x {row['size']}, {row['bytes']:,} bytes",
            f"    origin   {row['origin'] or 'not stated'}",
            f"    licence  {row['licence'] or 'not stated'}",
            f"    sha256   {row['sha256']}",
        ]
    for model_id, own in held.items():
        rows.append({"model_id": model_id, "role": own.role.value, "vectors": own.vectors, "registered": False})
        lines.append(f"{model_id}   not registered any more; {_ROLES[own.role.value]}, {own.vectors} vectors")
    return answer(options, rows, *lines)


def _held(config: Config) -> tuple[dict[str, HeldModel], list[MedSearchError]]:
    """Return what the library has of each model, and why that could not be seen where it could not."""
    from medsearch_desktop.errors import LibraryNotFoundError
    from medsearch_desktop.library import Library

    try:
        with Library(config) as library:
            return {held.model_id: held for held in library.models()}, []
    except LibraryNotFoundError:
        return {}, []
    except MedSearchError as error:
        return {}, [error]


def _verify(options: argparse.Namespace) -> int:
    verdicts = registry.verify(config_of(options), options.model_id)
    value = [{"model_id": v.model_id, "ok": v.ok, "problem": v.problem} for v in verdicts]
    lines = [f"ok       {v.model_id}" if v.ok else f"failure  {v.problem}" for v in verdicts]
    answer(options, value, *lines)
    return 0 if all(verdict.ok for verdict in verdicts) else 1


def _import(options: argparse.Namespace) -> int:
    done = registry.import_file(
        options.file,
        model_id=options.name,
        origin=options.origin,
        licence=options.licence,
        size=options.size,
        normalise=options.normalise,
        trust=options.trust,
    )
    row = registry.as_json(done.spec)
    preprocessing = done.spec.preprocessing
    scaling = f"mean {_numbers(preprocessing.mean)}, deviation {_numbers(preprocessing.std)}"
    lines = [
        f"{row['model_id']} is registered: {done.kind}",
        f"    input    {row['channels']} x {row['size']} x {row['size']}, {preprocessing.resize}, {scaling}",
        f"    origin   {row['origin']}",
        f"    licence  {row['licence']}",
        f"    sha256   {row['sha256']}",
        *([f"    signer   {registry.spaced(done.signer)}"] if done.signer else []),
        *(f"    note     {note}" for note in done.notes),
    ]
    return answer(options, {**row, "kind": done.kind, "signer": done.signer, "notes": list(done.notes)}, *lines)


def _export(options: argparse.Namespace) -> int:
    mark = registry.export(options.model_id, options.output)
    return answer(
        options,
        {"model_id": options.model_id, "output": options.output, "signer": mark},
        f"{options.model_id} is in {options.output}, signed by {registry.spaced(mark)}",
        "Tell the receiver that fingerprint by another way than the file's.",
    )


def _remove(options: argparse.Namespace) -> int:
    spec = registry.remove(config_of(options), options.model_id)
    return answer(options, {"model_id": spec.model_id, "removed": True}, f"{spec.model_id} is removed")


def _key(options: argparse.Namespace) -> int:
    mark = registry.own_fingerprint()
    return answer(options, {"fingerprint": mark}, registry.spaced(mark))


def _numbers(values: tuple[float, ...]) -> str:
    return " ".join(f"{value:.4g}" for value in values)
