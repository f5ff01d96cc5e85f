"""What plugins may ask of each other: one file per service, each a Protocol, its values and its facts.

A contract is a Protocol class marked with `declare.contract`. Its methods are coroutines whose parameters and
results are plain values (msgspec Structs, enums, numbers, text, bytes, datetimes and containers of them): the same
call is a direct await in one process and a message between two. A method is open to services only, unless
`declare.user` opens it to people of a role; such a method takes the verified `Caller` as its first parameter.
"""
