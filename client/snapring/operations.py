"""What a client can do, as courses: reads and writes, in a session or not. Pure."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from snapring import replies
from snapring.asked import PLAIN, Asked, Word, text_of, texts_of, together
from snapring.asking import Asking, Request, pipeline, request
from snapring.capture import Capture, Seen, captured, refuse
from snapring.course import Course
from snapring.errors import CallInvalid, TokenForeign, TokenInvalid, VersionMismatch
from snapring.keys import Key
from snapring.replies import Held, Kept, Page, Reply, Written
from snapring.session import Session, current
from snapring.writing import Change, Delete, Put, change_words


class Operations:
    """The operations of the client ``owner``."""

    def __init__(self, asking: Asking, owner: object) -> None:
        self._asking = asking
        self.owner = owner

    def get(
        self, key: str | Key, wanted: Asked, timeout_s: float | None, *, raw: bool = False
    ) -> Course[Reply]:
        """One key."""
        text = text_of(key)
        if wanted is PLAIN and current(self.owner) is None and captured(self.owner) is None:  # most reads
            (sent,) = yield from self._asking.ask(request((b"SNAP.GET", text), text), timeout_s)
            return replies.full(sent, raw=raw)
        capture = self._capture(wanted)
        there = capture.kept(text) if capture else None
        if there is None:
            there = yield from self._one(text, wanted, timeout_s)
            if capture is not None:
                capture.note(text, there)
        return replace(there.reply, value=there.raw) if raw else there.reply

    def get_many(
        self, keys: Sequence[str | Key], wanted: Asked, timeout_s: float | None, *, one_snapshot: bool
    ) -> Course[dict[str, Reply]]:
        """Several keys, in their order."""
        texts = texts_of(keys)
        capture = self._capture(wanted)
        kept = {text: there for text in texts if (there := capture.kept(text))} if capture else {}
        missing = [text for text in texts if text not in kept]
        found: Mapping[str, Seen] = {}
        if missing:
            found = yield from self.read(missing, wanted, timeout_s, one_snapshot=one_snapshot)
        for text, there in found.items():
            if capture is not None:
                capture.note(text, there)
        return {text: (kept.get(text) or found[text]).reply for text in texts}

    def read(
        self,
        texts: Sequence[str],
        wanted: Asked,
        timeout_s: float | None = None,
        *,
        one_snapshot: bool = True,
    ) -> Course[dict[str, Seen]]:
        """Several keys, each once, whoever asks."""
        session = current(self.owner)
        if wanted.strong and one_snapshot:
            wanted = Asked(
                (yield from self.strong_token(timeout_s)),
            )
        tokens = yield from self._tokens(session, wanted, timeout_s)
        if wanted.exactly is None and (one_snapshot or len(tokens) > 1):
            found = yield from self._together(texts, tokens, session, timeout_s)
        else:
            found = yield from self._each(texts, tokens, wanted, session, timeout_s)
        return dict(zip(texts, found, strict=True))

    def token(self, timeout_s: float | None, *, strong: bool, ticket: int | None) -> Course[str]:
        """A token of now, or of a transaction."""
        refuse(self.owner, "a token of now")
        if ticket is not None:
            if strong:
                raise CallInvalid("ask for a strong token or for a transaction's, not for both")
            return (yield from self._token((b"TICKET", str(ticket)), timeout_s))
        session = current(self.owner)
        if session is None:
            return (yield from self._token((b"STRONG",) if strong else (), timeout_s))
        (token,) = yield from self.strong_token(timeout_s)
        session.read((), token)
        return token

    def keys(
        self, prefix: str, after: str | None, count: int, wanted: Asked, timeout_s: float | None
    ) -> Course[Page]:
        """A page of the keys that begin with ``prefix``."""
        refuse(self.owner, "a listing")
        session = current(self.owner)
        tokens = yield from self._tokens(session, wanted, timeout_s)
        if len(tokens) > 1:  # the command takes one: of any key read at all of them
            anywhere = [f"{prefix.partition(':')[0]}:-"]
            (there,) = yield from self._together(anywhere, tokens, session, timeout_s)
            tokens = (there.reply.as_of,)
        options = (b"AFTER", after, b"COUNT", str(count)) if after else (b"COUNT", str(count))
        asked = Asked(tokens, wanted.exactly, wanted.strong).options
        words = (b"SNAP.KEYS", text_of(prefix), *options, *asked)
        command = request(words, None, token=_has_token(tokens, wanted))
        (raw,) = yield from self._ask(command, tokens, session, timeout_s)
        page = replies.page(raw)
        if session is not None:
            session.read(tokens, page.as_of)
        return page

    def browse(
        self, prefix: str, after: str | None, count: int, timeout_s: float | None
    ) -> Course[tuple[Kept, ...]]:
        """What all nodes together have in memory: as each tells its first ``count`` keys, so many are all there are."""
        refuse(self.owner, "a listing")
        options = (b"AFTER", after, b"COUNT", str(count)) if after else (b"COUNT", str(count))
        command = request((b"SNAP.KEYS", text_of(prefix), *options), None)
        answers = yield from self._asking.ask_everybody(command, timeout_s)
        found: dict[str, dict[str, Held]] = {}
        for (raw,) in answers:
            for key, held in replies.memory(raw):
                found.setdefault(key, {})[held.node] = held
        return tuple(
            Kept(key, tuple(held for _, held in sorted(found[key].items()))) for key in sorted(found)[:count]
        )

    def write(self, changes: Sequence[Change], timeout_s: float | None) -> Course[Written]:
        """All of ``changes`` or none."""
        refuse(self.owner, "a write")
        session = current(self.owner)
        if session is None:
            return (yield from self.write_alone(changes, timeout_s))
        before = session.floors
        try:
            written = yield from self.write_alone(changes, timeout_s)
        except VersionMismatch:
            session.learnt()
            raise
        session.wrote(before, written.token)
        return written

    def write_alone(self, changes: Sequence[Change], timeout_s: float | None = None) -> Course[Written]:
        """The same, whoever asks, and outside of any session."""
        if isinstance(changes, Put | Delete):
            raise CallInvalid("write takes a list: write([Put(…)])")
        if not changes:
            raise CallInvalid("a write has at least one key")
        words = tuple(change_words(changes))
        command = request(words, text_of(changes[0].key), write=True)
        (raw,) = yield from self._asking.ask(command, timeout_s)
        return replies.written(raw)

    def strong_token(self, timeout_s: float | None) -> Course[tuple[str, ...]]:
        """The token of a snapshot that is taken from now on."""
        return ((yield from self._token((b"STRONG",), timeout_s)),)

    def _token(self, options: Sequence[bytes | str], timeout_s: float | None) -> Course[str]:
        (raw,) = yield from self._asking.ask(request((b"SNAP.TOKEN", *options), None), timeout_s)
        return replies.token(raw)

    def _capture(self, wanted: Asked) -> Capture | None:
        capture = captured(self.owner)
        if capture is not None and wanted != PLAIN:
            raise CallInvalid(
                "inside a memoised function reads take neither at_least nor exactly nor strong: a hit does not make"
                " them; call the function inside a session instead"
            )
        return capture

    def _tokens(
        self, session: Session | None, wanted: Asked, timeout_s: float | None
    ) -> Course[tuple[str, ...]]:
        """What the answer must see."""
        if session is None:
            return wanted.at_least
        before = session.floors
        if before.look:
            (token,) = yield from self.strong_token(timeout_s)
            session.looked(before, token)
        if wanted.exactly is not None or wanted.strong:
            return ()
        floors = session.floors.tokens
        return tuple(dict.fromkeys((*floors, *wanted.at_least))) if wanted.at_least else floors

    def _one(self, text: str, wanted: Asked, timeout_s: float | None) -> Course[Seen]:
        session = current(self.owner)
        tokens = yield from self._tokens(session, wanted, timeout_s)
        if len(tokens) > 1:
            return (yield from self._together([text], tokens, session, timeout_s))[0]
        options = Asked(tokens, wanted.exactly, wanted.strong).options
        command = request((b"SNAP.GET", text, *options), text, token=_has_token(tokens, wanted))
        (raw,) = yield from self._ask(command, tokens, session, timeout_s)
        reply = replies.full(raw)
        if session is not None:
            session.read(tokens, reply.as_of)
        return Seen(reply, raw[b"value"])

    def _together(
        self, texts: Sequence[str], tokens: Sequence[str], session: Session | None, timeout_s: float | None
    ) -> Course[list[Seen]]:
        words: tuple[Word, ...] = (b"SNAP.MGET", *together(texts, tokens))
        command = request(words, (yield from self._asking.mostly(texts)), token=bool(tokens))
        (raw,) = yield from self._ask(command, tokens, session, timeout_s)
        values, found = replies.together(raw)
        if session is not None:
            session.read(tuple(tokens), found[0].as_of)
        return [Seen(reply, value) for value, reply in zip(values, found, strict=True)][: len(texts)]

    def _each(
        self,
        texts: Sequence[str],
        tokens: tuple[str, ...],
        wanted: Asked,
        session: Session | None,
        timeout_s: float | None,
    ) -> Course[list[Seen]]:
        options = Asked(tokens, wanted.exactly, wanted.strong).options

        def asked(some: Sequence[str]) -> Request:
            commands = [(b"SNAP.GET", text, *options) for text in some]
            return pipeline(commands, some[0], token=_has_token(tokens, wanted))

        asking = self._asking.ask_apart(texts, asked, timeout_s)
        raws = yield from self._heard(asking, tokens, session)
        found = [Seen(replies.full(raw), raw[b"value"]) for raw in raws]
        if session is not None:
            for there in found:
                session.read(tokens, there.reply.as_of)
        return found

    def _ask(
        self, command: Request, tokens: Sequence[str], session: Session | None, timeout_s: float | None
    ) -> Course[list[Any]]:
        return self._heard(self._asking.ask(command, timeout_s), tokens, session)

    def _heard(
        self, asking: Course[list[Any]], tokens: Sequence[str], session: Session | None
    ) -> Course[list[Any]]:
        """A session hears once of tokens that mean nothing any more."""
        try:
            return (yield from asking)
        except (TokenForeign, TokenInvalid):
            if session is not None:
                session.refused(tuple(tokens))
            raise


def _has_token(tokens: Sequence[str], wanted: Asked) -> bool:
    return bool(tokens) or wanted.exactly is not None
