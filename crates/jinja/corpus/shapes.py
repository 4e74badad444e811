"""Guesses, from how templates use a name, a value that lets them render.

Roles leave much to the playbook that uses them: names without default, empty lists. With
the defaults alone the inside of most loops and conditions is never seen. What is made up
here is the same for every engine, and for every run.
"""
from jinja2 import nodes

LIST_FILTERS = set("""join map select selectattr reject rejectattr sort unique flatten union difference intersect
    list first last zip groupby batch sum items2dict subelements product symmetric_difference random shuffle
    ipaddr_list""".split())
SAME_FILTERS = set("default d list sort unique select selectattr reject rejectattr flatten mandatory union".split())
DICT_FILTERS = {"dict2items", "dictsort", "combine", "items"}
INT_FILTERS = {"int", "float", "abs", "round"}
TEXT_FILTERS = set("""trim upper lower replace regex_replace regex_search regex_findall quote basename dirname
    b64encode hash password_hash indent comment split urlsplit capitalize title to_uuid splitext""".split())
# What these read must be well-formed.
TEXTS_FOR = {"b64decode": "dmFsdWU=", "from_json": '{"key": "value"}', "from_yaml": "key: value", "to_datetime": "2026-11-21 00:00:00"}
DICT_METHODS = {"items", "keys", "values", "iteritems"}
TEXT_METHODS = {"split", "startswith", "endswith", "strip", "lower", "upper", "replace", "rstrip", "lstrip", "format"}


class Shape:
    def __init__(self):
        self.kinds = {}
        self.attributes = {}
        self.element = None
        self.constant = None

    def hint(self, kind, weight):
        self.kinds[kind] = self.kinds.get(kind, 0) + weight

    def attribute(self, name):
        self.hint("dict", 5)
        return self.attributes.setdefault(name, Shape())

    def item(self, kind="list"):
        self.hint(kind, 4)
        if self.element is None:
            self.element = Shape()
        return self.element

    def value(self, name, depth=0):
        if depth > 6:
            return name
        kind = max(sorted(self.kinds), key=self.kinds.get) if self.kinds else "text"
        if kind == "dict":
            out = {key: shape.value(key, depth + 1) for key, shape in sorted(self.attributes.items())}
            if self.element is not None or not out:
                inner = self.element or Shape()
                for key in ("one", "two"):
                    out.setdefault(key, inner.value(key, depth + 1))
            return out
        if kind == "list":
            inner = self.element or Shape()
            return [inner.value(name + suffix, depth + 1) for suffix in ("_a", "_b")]
        if kind == "int":
            return self.constant if isinstance(self.constant, int) else 8080
        if kind == "bool":
            return True
        return self.constant if isinstance(self.constant, str) else known(name)


def known(name):
    """Text that looks like what the name says."""
    for part, text in (("cidr", "10.1.0.0/16"), ("network", "10.1.0.0/16"), ("subnet", "10.1.2.0/24"),
                       ("address", "192.0.2.20"), ("_ip", "192.0.2.20"), ("version", "1.2.3"), ("port", "8080"),
                       ("host", "db.example.com"), ("url", "https://www.example.com:8443/a/b?c=d"),
                       ("path", "/srv/data/" + name), ("dir", "/srv/" + name), ("file", "/etc/%s.conf" % name),
                       ("size", "512m"), ("mode", "0640"), ("email", "root@example.com")):
        if part in name:
            return text
    return name.replace("_", "-") + " value"


class Usage:
    """The shapes of all names that some sources leave undeclared."""

    def __init__(self):
        self.names = {}

    def add(self, tree):
        self.block(tree.body, {})

    def name(self, name, local):
        if name in local:
            return local[name]
        return self.names.setdefault(name, Shape())

    def block(self, body, local):
        for node in body:
            self.statement(node, local)

    def bind(self, target, shape, local):
        if isinstance(target, nodes.Name):
            local[target.name] = shape or Shape()
        elif isinstance(target, nodes.Tuple):
            for index, item in enumerate(target.items):
                part = shape.element if shape is not None and index and shape.element else Shape()
                self.bind(item, part, local)

    def statement(self, node, local):
        if isinstance(node, nodes.For):
            local = dict(local, loop=Shape())
            self.bind(node.target, self.iterated(node.iter, local), local)
            if node.test is not None:
                self.expression(node.test, local)
            self.block(node.body, local)
            self.block(node.else_, local)
        elif isinstance(node, nodes.If):
            self.condition(node.test, local)
            for part in (node.body, node.elif_, node.else_):
                self.block(part, local)
        elif isinstance(node, nodes.Assign):
            self.bind(node.target, self.expression(node.node, local), local)
        elif isinstance(node, (nodes.Macro, nodes.CallBlock)):
            inner = dict(local, caller=Shape(), varargs=Shape(), kwargs=Shape())
            for argument in node.args:
                inner[argument.name] = Shape()
            if isinstance(node, nodes.CallBlock):
                self.expression(node.call, local)
            else:
                local[node.name] = Shape()
            self.block(node.body, inner)
        elif isinstance(node, (nodes.Import,)):
            local[node.target] = Shape()
        elif isinstance(node, nodes.FromImport):
            for name in node.names:
                local[name if isinstance(name, str) else name[1]] = Shape()
        elif isinstance(node, nodes.With):
            inner = dict(local)
            for target, value in zip(node.targets, node.values):
                self.bind(target, self.expression(value, local), inner)
            self.block(node.body, inner)
        else:
            for child in node.iter_child_nodes():
                if isinstance(child, nodes.Stmt):
                    self.statement(child, local)
                elif isinstance(child, nodes.Expr):
                    self.expression(child, local)

    def iterated(self, node, local):
        """What a loop over the expression binds."""
        if isinstance(node, nodes.Call) and isinstance(node.node, nodes.Getattr) and node.node.attr in DICT_METHODS:
            shape = self.expression(node.node.node, local)
            if shape is None:
                return None
            pair = Shape()
            pair.element = shape.item("dict")
            shape.hint("dict", 20)
            return pair if node.node.attr != "values" else pair.element
        if isinstance(node, nodes.Filter) and node.name.split(".")[-1] in DICT_FILTERS:
            shape = self.expression(node.node, local)
            if shape is None:
                return None
            shape.hint("dict", 20)
            pair = Shape()
            pair.element = pair.attributes["value"] = shape.item("dict")
            return pair
        shape = self.expression(node, local)
        return None if shape is None else shape.item()

    def condition(self, node, local):
        shape = self.expression(node, local)
        if shape is not None:
            shape.hint("bool", 1)

    def expression(self, node, local):
        """Visits an expression; the shape of what it is, where that is a part of a variable."""
        if isinstance(node, nodes.Name):
            return self.name(node.name, local)
        if isinstance(node, nodes.Getattr):
            shape = self.expression(node.node, local)
            return None if shape is None else shape.attribute(node.attr)
        if isinstance(node, nodes.Getitem):
            shape = self.expression(node.node, local)
            if not isinstance(node.arg, nodes.Const):
                if isinstance(node.arg, nodes.Slice):
                    return shape
                self.expression(node.arg, local)
                return None if shape is None else shape.item("dict")
            if shape is None:
                return None
            return shape.attribute(node.arg.value) if isinstance(node.arg.value, str) else shape.item()
        if isinstance(node, nodes.Call):
            for part in list(node.args) + [keyword.value for keyword in node.kwargs]:
                self.expression(part, local)
            if isinstance(node.node, nodes.Getattr):
                shape = self.expression(node.node.node, local)
                if shape is None:
                    return None
                if node.node.attr in DICT_METHODS:
                    shape.hint("dict", 20)
                elif node.node.attr in TEXT_METHODS:
                    shape.hint("text", 8)
                elif node.node.attr == "get" and node.args and isinstance(node.args[0], nodes.Const):
                    return shape.attribute(node.args[0].value)
                elif node.node.attr == "append":
                    shape.hint("list", 8)
            return None
        if isinstance(node, nodes.Filter):
            for part in list(node.args) + [keyword.value for keyword in node.kwargs]:
                self.expression(part, local)
            if node.node is None:
                return None
            shape = self.expression(node.node, local)
            name = node.name.split(".")[-1]
            if shape is None:
                return None
            if name in TEXTS_FOR:
                shape.hint("text", 8)
                shape.constant = TEXTS_FOR[name]
            for names, kind, weight in ((DICT_FILTERS, "dict", 8), (LIST_FILTERS - SAME_FILTERS, "list", 3),
                                        (INT_FILTERS, "int", 6), (TEXT_FILTERS, "text", 4), ({"bool"}, "bool", 6)):
                if name in names:
                    shape.hint(kind, weight)
            if name in ("selectattr", "rejectattr", "map"):
                attribute = [a.value for a in node.args[:1] if isinstance(a, nodes.Const) and name != "map"]
                attribute += [k.value.value for k in node.kwargs if k.key == "attribute" and isinstance(k.value, nodes.Const)]
                for text in attribute:
                    inner = shape.item()
                    for part in str(text).split("."):
                        inner = inner.attribute(part)
            return shape if name in SAME_FILTERS else None
        if isinstance(node, nodes.Test):
            shape = self.expression(node.node, local)
            for part in node.args or []:
                self.expression(part, local)
            if shape is not None and node.name in ("mapping", "iterable", "string", "number", "sequence"):
                shape.hint({"mapping": "dict", "string": "text", "number": "int"}.get(node.name, "list"), 2)
            return None
        if isinstance(node, nodes.Compare):
            shape = self.expression(node.expr, local)
            for operand in node.ops:
                if shape is not None and isinstance(operand.expr, nodes.Const) and operand.op in ("eq", "lteq", "gteq", "gt", "lt"):
                    kind = {bool: "bool", int: "int", str: "text"}.get(type(operand.expr.value))
                    if kind:
                        shape.hint(kind, 4)
                        shape.constant = operand.expr.value if operand.op == "eq" else shape.constant
                other = self.expression(operand.expr, local)
                if other is not None and operand.op in ("in", "notin"):
                    other.hint("list", 2)
            return None
        if isinstance(node, nodes.CondExpr):
            self.condition(node.test, local)
            self.expression(node.expr1, local)
            if node.expr2 is not None:
                self.expression(node.expr2, local)
            return None
        if isinstance(node, (nodes.And, nodes.Or, nodes.Not)):
            for child in node.iter_child_nodes():
                self.condition(child, local)
            return None
        if isinstance(node, (nodes.Add, nodes.Sub, nodes.Mul, nodes.Div, nodes.FloorDiv)):
            for side, other in ((node.left, node.right), (node.right, node.left)):
                shape = self.expression(side, local)
                if shape is not None and isinstance(other, (nodes.Const, nodes.List)):
                    value = getattr(other, "value", [])
                    kind = {int: "int", float: "int", str: "text", list: "list"}.get(type(value))
                    if kind:
                        shape.hint(kind, 4)
            return None
        for child in node.iter_child_nodes():
            if isinstance(child, nodes.Expr):
                self.expression(child, local)
        return None
