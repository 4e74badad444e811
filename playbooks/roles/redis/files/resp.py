"""A connection to Redis, for programs that need no more than its protocol (RESP 2)."""


class Refused(Exception):
    pass


class Connection:
    """Commands, with answers as bytes, numbers, lists of them, and None."""

    def __init__(self, socket):
        self.socket = socket
        self.file = socket.makefile("rb")

    def __call__(self, *words):
        return self.all([words])[0]

    def all(self, commands):
        """The answers of several at once; the first error that one of them is counts for all."""
        self.socket.sendall(b"".join(map(_encoded, commands)))
        answers, problem = [], None
        for _ in commands:
            try:
                answers.append(self.answer())
            except Refused as error:
                problem = problem or error
        if problem:
            raise problem
        return answers

    def answer(self):
        line = self.file.readline()
        if not line.endswith(b"\r\n"):
            raise EOFError("Redis ended the connection")
        kind, rest = line[:1], line[1:-2]
        if kind == b"-":
            raise Refused(rest.decode(errors="replace"))
        if kind == b"$":
            return self._exactly(int(rest)) if int(rest) >= 0 else None
        if kind == b"*":
            return [self.answer() for _ in range(int(rest))] if int(rest) >= 0 else None
        return int(rest) if kind == b":" else rest

    def _exactly(self, length):
        text = self.file.read(length + 2)
        if len(text) < length + 2:
            raise EOFError("Redis ended the connection")
        return text[:-2]


def _encoded(words):
    words = [word if isinstance(word, bytes) else str(word).encode() for word in words]
    return b"*%d\r\n" % len(words) + b"".join(b"$%d\r\n%s\r\n" % (len(word), word) for word in words)
