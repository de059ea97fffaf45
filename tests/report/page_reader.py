"""Reads a page into a tree that a test can ask."""

import base64
import json
import zlib
from html.parser import HTMLParser

from vone_jax.report import page as pages

VOID = {"meta", "img", "br", "link", "hr", "input"}


class Element:
    """An element: name, attributes, children (elements and strings)."""

    def __init__(self, name, attributes):
        self.name, self.attributes, self.children = name, dict(attributes), []

    def all(self, name=None):
        """All elements inside, in document order, maybe only those of a name."""
        for child in self.children:
            if isinstance(child, Element):
                if name in (None, child.name):
                    yield child
                yield from child.all(name)

    def of_class(self, name):
        """All elements inside that have this class and no other."""
        return [each for each in self.all() if each.attributes.get("class") == name]

    def find(self, **attributes):
        """The first element inside that has these attributes."""
        for element in self.all():
            if all(element.attributes.get(key) == value for key, value in attributes.items()):
                return element
        raise LookupError(attributes)

    @property
    def text(self):
        return "".join(c if isinstance(c, str) else c.text for c in self.children)

    @property
    def words(self):
        """The text with single spaces."""
        return " ".join(self.text.split())


class _Reader(HTMLParser):
    def __init__(self):
        super().__init__()
        self.root = Element("document", ())
        self.open = [self.root]

    def handle_starttag(self, tag, attrs):
        names = [name for name, _ in attrs]
        assert len(set(names)) == len(names), f"an attribute is given twice in {tag}"
        element = Element(tag, attrs)
        self.open[-1].children.append(element)
        if tag not in VOID:
            self.open.append(element)

    def handle_startendtag(self, tag, attrs):
        self.open[-1].children.append(Element(tag, attrs))

    def handle_endtag(self, tag):
        assert self.open[-1].name == tag, f"</{tag}> closes <{self.open[-1].name}>"
        self.open.pop()

    def handle_data(self, data):
        self.open[-1].children.append(data)


def read(page):
    """The tree of a page, in which every tag must be closed in order."""
    reader = _Reader()
    reader.feed(page)
    reader.close()
    assert reader.open == [reader.root], "an element is not closed"
    return reader.root


def unpacked(tree, name):
    """A text that is compressed in the page."""
    return zlib.decompress(base64.b64decode(tree.find(id=name).text)).decode()


def specs(tree, inside=None):
    """The specifications of the charts by name, maybe only of those inside an element."""
    every = json.loads(unpacked(tree, "charts"))["specs"]
    plots = (inside or tree).of_class("plot")
    return {plot.attributes["id"]: every[plot.attributes["id"]] for plot in plots}


def rendered(runs):
    """The tree of the page of some runs in memory."""
    return read(pages.render(runs))
