"""API pages: a page for each package, from the public names that the package itself declares.

The pages are written below ``docs/api`` when a build begins, and git ignores them. A literal such
as ``PGD`` in a docstring becomes a link where it is a public name.
"""

import ast
import importlib
import inspect
import re
import types
from pathlib import Path

from sphinx.domains.python import PyObject

PACKAGES = (
    "vone_jax.v1", "vone_jax.models", "vone_jax.front_ends", "vone_jax.attacks",
    "vone_jax.corruptions",
    "vone_jax.neurophysiology", "vone_jax.network", "vone_jax.evaluation", "vone_jax.results",
    "vone_jax.report", "vone_jax.sweep", "vone_jax.data", "vone_jax.training", "vone_jax.convert",
    "vone_jax.certification", "vone_jax.certification.measured", "vone_jax.diagnostics",
    "vone_jax.answer_key", "vone_jax.perception", "vone_jax.perception.glue",
    "vone_jax.perception.synthesis", "vone_jax.perception.humans", "vone_jax.fast",
    "vone_jax.prng", "vone_jax.mesh", "vone_jax.results.mce",
    "vone_jax.neurophysiology.measured", "vone_jax.neurophysiology.pictures",
    "vone_jax.neurophysiology.stimuli",
    "vone_jax.neurophysiology.textures",
    "vone_jax.neurophysiology.reference_tables", "vone_jax.neurophysiology.explained_variance",
)  # fmt: skip
LITERAL = re.compile(r"``([A-Za-z_][\w.]*)``")
# The public name under which each object is described, by its public names and by its module.
NAMES: dict[str, str] = {}
ORIGINS: dict[str, str] = {}


def origin(value: object) -> str:
    """Return the module and the name of a class or function."""
    return f"{getattr(value, '__module__', '')}.{getattr(value, '__name__', '')}"


def public(package: types.ModuleType) -> list[str]:
    """Return ``__all__``, or the names that the package imports or defines."""
    if hasattr(package, "__all__"):
        return list(package.__all__)
    own = package.__spec__ is not None and package.__spec__.submodule_search_locations is None
    return [
        name
        for name, value in vars(package).items()
        if not name.startswith("_")
        and not isinstance(value, types.ModuleType)
        # A module without a list has the public names that it defines.
        and (not own or getattr(value, "__module__", None) == package.__name__)
        and (not own or callable(value))
    ]


def comments(name: str) -> dict[str, str]:
    """Return the comments above the constants of a package's modules."""
    found: dict[str, str] = {}
    file = Path(importlib.import_module(name).__file__)
    for path in file.parent.glob("*.py") if file.stem == "__init__" else [file]:
        text = path.read_text()
        found |= commented(ast.parse(text).body, text)
    return found


def commented(body: list[ast.stmt], text: str) -> dict[str, str]:
    """Return the comments above the assignments among some statements of a program."""
    lines, found = [line.strip() for line in text.splitlines()], {}
    for node in body:
        if not isinstance(node, ast.Assign | ast.AnnAssign):
            continue
        targets = node.targets if isinstance(node, ast.Assign) else [node.target]
        first = last = node.lineno - 1
        while lines[first - 1].startswith("# "):
            first -= 1
        comment = " ".join(line[2:] for line in lines[first:last])
        found |= {target.id: comment for target in targets if isinstance(target, ast.Name)}
    return found


def fields(value: type) -> list[str]:
    """Return the section on the attributes of a class, from the comments above its fields."""
    text = inspect.cleandoc(f"\n{inspect.getsource(value)}")
    (tree,) = ast.parse(text).body
    notes = commented(tree.body, text)
    section = [f"  {name}: {note}" for name, note in notes.items() if note]
    return ["Attributes:", *section, ""] if section else []


def entry(package: str, name: str, value: object, notes: dict[str, str]) -> tuple[str, list[str]]:
    """Return the first sentence about a name, and the lines of its description."""
    text = notes.get(name, "")
    if inspect.isclass(value) or inspect.isfunction(value) or inspect.ismodule(value):
        text = (inspect.getdoc(value) or "").split("\n\n")[0].replace("\n", " ")
    text = markup(package, text)
    sentence = re.split(r"(?<=[^.A-Z]\.)\s", text, maxsplit=1)[0]
    if NAMES[f"{package}.{name}"] != f"{package}.{name}":
        return sentence, []
    if inspect.ismodule(value):
        return sentence, [f".. automodule:: {value.__name__}", "   :members:", ""]
    if inspect.isclass(value) or inspect.isfunction(value):
        kind = "class" if inspect.isclass(value) else "function"
        ours = [base for base in getattr(value, "__mro__", ())[1:] if origin(base) in NAMES]
        options = ["   :show-inheritance:"] if ours else []
        return sentence, [f".. auto{kind}:: {package}.{name}", *options, ""]
    shown = f"{{{', '.join(map(repr, value))}}}" if isinstance(value, dict) else repr(value)
    shown = re.sub(r"\b(typing|vone_jax\.[\w.]*)\.(\w+)", r"\2", shown)
    if len(shown) > 300:
        shown = f"{shown[: shown.rfind(',', 0, 290) + 1]} ..."
    sentence = sentence or f"``{shown[:120]}``"
    return sentence, [
        f".. py:data:: {name}",
        f"   :value: {shown}",
        "",
        f"   {text}",
        "",
    ]


def page(package: str) -> str:
    """Return the page of a package, in reStructuredText."""
    module = importlib.import_module(package)
    notes = comments(package)
    lines = [package, "=" * len(package), "", f".. py:module:: {package}", ""]
    lines += [*restructured(package, (inspect.getdoc(module) or "").splitlines()), ""]
    lines += [".. list-table::", "   :class: names", "   :widths: 30 70", ""]
    body = []
    for name in public(module):
        # The function itself, if jax.jit wraps it.
        value = inspect.unwrap(getattr(module, name))
        sentence, described = entry(package, name, value, notes)
        link = f":py:obj:`{name} <{NAMES[f'{package}.{name}']}>`"
        lines += [f"   * - {link}", f"     - {sentence}"]
        body += described
    return "\n".join([*lines, "", *body])


def write_pages(app) -> None:
    """Write the pages, and learn where every object is described."""
    for package in PACKAGES:
        module = importlib.import_module(package)
        for name in public(module):
            value = inspect.unwrap(getattr(module, name))
            defined = f"{package}.{name}"
            if inspect.isclass(value) or inspect.isfunction(value):
                defined = origin(value)
            # A name that several packages have is described where it is defined, or first.
            if defined.startswith(f"{package}.") or defined not in NAMES:
                NAMES[defined] = f"{package}.{name}"
            ORIGINS[f"{package}.{name}"] = defined
    NAMES.update({name: NAMES[defined] for name, defined in ORIGINS.items()})
    folder = Path(app.srcdir) / "api"
    for package in PACKAGES:
        path = folder / f"{package}.rst"
        text = page(package)
        # An unchanged page keeps its time, and is not read again.
        if not path.exists() or path.read_text() != text:
            path.write_text(text)


def markup(package: str, line: str) -> str:
    """Escape a line of text, and make links of the public names among its literals."""
    parts = re.split(r"(``[^`]*``)", line)
    for i, part in enumerate(parts):
        if i % 2 == 0:
            parts[i] = re.sub(r"([*|]|(?<=\w)_(?!\w))", r"\\\1", part)
            if i and part[:1].isalpha():
                parts[i] = f"\\ {parts[i]}"
        elif match := LITERAL.fullmatch(part):
            name = match[1].removeprefix("vone_jax.")
            target = NAMES.get(f"{package}.{name}") or NAMES.get(f"vone_jax.{name}")
            parts[i] = f":py:obj:`{match[1]} <{target}>`" if target else part
    return "".join(parts)


def restructured(package: str, lines: list[str]) -> list[str]:
    """Make reStructuredText of a docstring: indented blocks between paragraphs are code."""
    text: list[str] = []
    code = False
    for number, line in enumerate(lines):
        before = lines[number - 1].strip() if number else ""
        if line.startswith("    ") and not before and text and text[-2:] and not code:
            heading = next(old for old in reversed(text) if old.strip())
            code = not heading.startswith(" ")
            text += ["::", ""] if code else []
        elif line and not line.startswith("    "):
            code = False
        text.append(line if code else markup(package, line))
    return text


def docstring(app, what, name, obj, options, lines) -> None:
    """Rewrite a docstring, and name the exceptions in full that it can raise."""
    package = ".".join(name.split(".")[:2])
    if what == "class" and "Attributes:" not in lines:
        place = lines.index("Raises:") if "Raises:" in lines else len(lines)
        lines[place:place] = fields(obj)
    lines[:] = restructured(package, lines)
    names = vars(inspect.getmodule(obj) or types)
    raises = False
    for number, line in enumerate(lines):
        if raises and (match := re.match(r"  ([\w., ]+):", line)):
            full = [public_name(names.get(each), each) for each in match[1].split(", ")]
            lines[number] = f"  {', '.join(full)}{line[match.end(1) :]}"
        raises = line == "Raises:" or raises and (not line or line.startswith(" "))


def public_name(value: object, name: str) -> str:
    """Return the public name of a class, as a reference that shows its last part."""
    target = NAMES.get(origin(value)) or NAMES.get(f"vone_jax.{name}")
    return f"~{target}" if target else name


def bases(app, name, obj, options, classes) -> None:
    """Show the public bases of a class, or those of its private bases."""
    for number, base in enumerate(classes):
        while origin(base).startswith("vone_jax") and origin(base) not in NAMES:
            base = base.__bases__[0]
        classes[number] = base


def signature(app, what, name, obj, options, arguments, returned):
    """Show arrays under their usual name, strings with their accepted values, numbers without."""

    def usual(text: str | None) -> str | None:
        text = text and text.replace("jaxlib._jax.Array", "Array")
        text = text and re.sub(r"\bAnnotated\[([^][,]+), Range\([^()]*\)\]", r"\1", text)
        text = text and re.sub(
            r"\bAnnotated\[((?:[^][]|\[[^][]*\])+?), FieldInfo\([^][]*\[[^][]*\]\)\]", r"\1", text
        )
        return text and re.sub(
            r"\bAnnotated\[str(?: \| None)?, \(?('[^\])]*)\)?\]", r"Literal[\1]", text
        )

    return usual(arguments), usual(returned)


def public_target(app, env, node, content):
    """Resolve a reference to an object under the name of its module to its public name."""
    target = NAMES.get(node.get("reftarget", ""))
    if target is None or target == node["reftarget"]:
        return None
    domain = env.get_domain("py")
    return domain.resolve_xref(
        env, node.get("refdoc", ""), app.builder, "obj", target, node, content
    )


def skip(app, what, name, obj, skip, options):
    """Leave out the fields of named tuples."""
    if (getattr(obj, "__doc__", "") or "").startswith("Alias for"):
        return True
    return None


def setup(app):
    for field in PyObject.doc_field_types:
        if field.name == "variable":
            field.label = "Attributes"
    app.connect("builder-inited", write_pages)
    # Before napoleon, which reads the sections.
    app.connect("autodoc-process-docstring", docstring, priority=400)
    app.connect("autodoc-process-bases", bases)
    app.connect("autodoc-process-signature", signature)
    app.connect("autodoc-skip-member", skip)
    app.connect("missing-reference", public_target)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
