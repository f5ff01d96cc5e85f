"""The kernel: finds plugins, orders them, starts and stops them, binds what one needs to what another provides.

It imports neither plugins nor contracts and knows nobody by name.
"""

from streamgate.kernel.binding import Binding, DirectBinding, LoopbackBinding, check_contract
from streamgate.kernel.host import Assembled, Host
from streamgate.kernel.plugin import Check, Context, Parts, Plugin
from streamgate.kernel.registry import discover, in_order, select

__all__ = [
    "Assembled",
    "Binding",
    "Check",
    "Context",
    "DirectBinding",
    "Host",
    "LoopbackBinding",
    "Parts",
    "Plugin",
    "check_contract",
    "discover",
    "in_order",
    "select",
]
