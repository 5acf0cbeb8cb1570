from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class State(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    STATE_UNSPECIFIED: _ClassVar[State]
    STATE_FRESH: _ClassVar[State]
    STATE_STALE: _ClassVar[State]

class Source(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    SOURCE_UNSPECIFIED: _ClassVar[Source]
    SOURCE_LOCAL: _ClassVar[Source]
    SOURCE_PEER: _ClassVar[Source]
    SOURCE_BACKUP: _ClassVar[Source]
    SOURCE_LOAD: _ClassVar[Source]
STATE_UNSPECIFIED: State
STATE_FRESH: State
STATE_STALE: State
SOURCE_UNSPECIFIED: Source
SOURCE_LOCAL: Source
SOURCE_PEER: Source
SOURCE_BACKUP: Source
SOURCE_LOAD: Source

class Consistency(_message.Message):
    __slots__ = ("at_least", "exactly", "strong")
    AT_LEAST_FIELD_NUMBER: _ClassVar[int]
    EXACTLY_FIELD_NUMBER: _ClassVar[int]
    STRONG_FIELD_NUMBER: _ClassVar[int]
    at_least: str
    exactly: str
    strong: bool
    def __init__(self, at_least: _Optional[str] = ..., exactly: _Optional[str] = ..., strong: _Optional[bool] = ...) -> None: ...

class GetRequest(_message.Message):
    __slots__ = ("key", "consistency", "track")
    KEY_FIELD_NUMBER: _ClassVar[int]
    CONSISTENCY_FIELD_NUMBER: _ClassVar[int]
    TRACK_FIELD_NUMBER: _ClassVar[int]
    key: str
    consistency: Consistency
    track: bool
    def __init__(self, key: _Optional[str] = ..., consistency: _Optional[_Union[Consistency, _Mapping]] = ..., track: _Optional[bool] = ...) -> None: ...

class GetReply(_message.Message):
    __slots__ = ("value", "as_of", "age_ms", "state", "source", "version", "tracked")
    VALUE_FIELD_NUMBER: _ClassVar[int]
    AS_OF_FIELD_NUMBER: _ClassVar[int]
    AGE_MS_FIELD_NUMBER: _ClassVar[int]
    STATE_FIELD_NUMBER: _ClassVar[int]
    SOURCE_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    TRACKED_FIELD_NUMBER: _ClassVar[int]
    value: bytes
    as_of: str
    age_ms: int
    state: State
    source: Source
    version: int
    tracked: Place
    def __init__(self, value: _Optional[bytes] = ..., as_of: _Optional[str] = ..., age_ms: _Optional[int] = ..., state: _Optional[_Union[State, str]] = ..., source: _Optional[_Union[Source, str]] = ..., version: _Optional[int] = ..., tracked: _Optional[_Union[Place, _Mapping]] = ...) -> None: ...

class GetManyRequest(_message.Message):
    __slots__ = ("keys", "consistency", "one_snapshot")
    KEYS_FIELD_NUMBER: _ClassVar[int]
    CONSISTENCY_FIELD_NUMBER: _ClassVar[int]
    ONE_SNAPSHOT_FIELD_NUMBER: _ClassVar[int]
    keys: _containers.RepeatedScalarFieldContainer[str]
    consistency: Consistency
    one_snapshot: bool
    def __init__(self, keys: _Optional[_Iterable[str]] = ..., consistency: _Optional[_Union[Consistency, _Mapping]] = ..., one_snapshot: _Optional[bool] = ...) -> None: ...

class GetManyReply(_message.Message):
    __slots__ = ("replies",)
    REPLIES_FIELD_NUMBER: _ClassVar[int]
    replies: _containers.RepeatedCompositeFieldContainer[GetReply]
    def __init__(self, replies: _Optional[_Iterable[_Union[GetReply, _Mapping]]] = ...) -> None: ...

class Deed(_message.Message):
    __slots__ = ("key", "put", "delete", "if_version")
    KEY_FIELD_NUMBER: _ClassVar[int]
    PUT_FIELD_NUMBER: _ClassVar[int]
    DELETE_FIELD_NUMBER: _ClassVar[int]
    IF_VERSION_FIELD_NUMBER: _ClassVar[int]
    key: str
    put: bytes
    delete: Delete
    if_version: int
    def __init__(self, key: _Optional[str] = ..., put: _Optional[bytes] = ..., delete: _Optional[_Union[Delete, _Mapping]] = ..., if_version: _Optional[int] = ...) -> None: ...

class Delete(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class WriteRequest(_message.Message):
    __slots__ = ("deeds",)
    DEEDS_FIELD_NUMBER: _ClassVar[int]
    deeds: _containers.RepeatedCompositeFieldContainer[Deed]
    def __init__(self, deeds: _Optional[_Iterable[_Union[Deed, _Mapping]]] = ...) -> None: ...

class WriteReply(_message.Message):
    __slots__ = ("token", "version", "existed")
    TOKEN_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    EXISTED_FIELD_NUMBER: _ClassVar[int]
    token: str
    version: int
    existed: int
    def __init__(self, token: _Optional[str] = ..., version: _Optional[int] = ..., existed: _Optional[int] = ...) -> None: ...

class TokenRequest(_message.Message):
    __slots__ = ("strong", "ticket")
    STRONG_FIELD_NUMBER: _ClassVar[int]
    TICKET_FIELD_NUMBER: _ClassVar[int]
    strong: bool
    ticket: int
    def __init__(self, strong: _Optional[bool] = ..., ticket: _Optional[int] = ...) -> None: ...

class TokenReply(_message.Message):
    __slots__ = ("token",)
    TOKEN_FIELD_NUMBER: _ClassVar[int]
    token: str
    def __init__(self, token: _Optional[str] = ...) -> None: ...

class Place(_message.Message):
    __slots__ = ("log", "tick")
    LOG_FIELD_NUMBER: _ClassVar[int]
    TICK_FIELD_NUMBER: _ClassVar[int]
    log: int
    tick: int
    def __init__(self, log: _Optional[int] = ..., tick: _Optional[int] = ...) -> None: ...

class WatchRequest(_message.Message):
    __slots__ = ("after", "prefixes")
    AFTER_FIELD_NUMBER: _ClassVar[int]
    PREFIXES_FIELD_NUMBER: _ClassVar[int]
    after: Place
    prefixes: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, after: _Optional[_Union[Place, _Mapping]] = ..., prefixes: _Optional[_Iterable[str]] = ...) -> None: ...

class WatchEvent(_message.Message):
    __slots__ = ("skipped", "keys", "place", "watermark", "age_ms")
    SKIPPED_FIELD_NUMBER: _ClassVar[int]
    KEYS_FIELD_NUMBER: _ClassVar[int]
    PLACE_FIELD_NUMBER: _ClassVar[int]
    WATERMARK_FIELD_NUMBER: _ClassVar[int]
    AGE_MS_FIELD_NUMBER: _ClassVar[int]
    skipped: bool
    keys: _containers.RepeatedScalarFieldContainer[str]
    place: Place
    watermark: str
    age_ms: int
    def __init__(self, skipped: _Optional[bool] = ..., keys: _Optional[_Iterable[str]] = ..., place: _Optional[_Union[Place, _Mapping]] = ..., watermark: _Optional[str] = ..., age_ms: _Optional[int] = ...) -> None: ...

class StatusRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class StatusReply(_message.Message):
    __slots__ = ("node", "watermark", "sections")
    NODE_FIELD_NUMBER: _ClassVar[int]
    WATERMARK_FIELD_NUMBER: _ClassVar[int]
    SECTIONS_FIELD_NUMBER: _ClassVar[int]
    node: str
    watermark: str
    sections: _containers.RepeatedCompositeFieldContainer[Section]
    def __init__(self, node: _Optional[str] = ..., watermark: _Optional[str] = ..., sections: _Optional[_Iterable[_Union[Section, _Mapping]]] = ...) -> None: ...

class Section(_message.Message):
    __slots__ = ("name", "fields")
    class FieldsEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: str
        def __init__(self, key: _Optional[str] = ..., value: _Optional[str] = ...) -> None: ...
    NAME_FIELD_NUMBER: _ClassVar[int]
    FIELDS_FIELD_NUMBER: _ClassVar[int]
    name: str
    fields: _containers.ScalarMap[str, str]
    def __init__(self, name: _Optional[str] = ..., fields: _Optional[_Mapping[str, str]] = ...) -> None: ...
