"""The door before calls (gRPC) that people make: the same credentials and limits as for requests."""

from __future__ import annotations

from streamgate.contracts.auth import Access
from streamgate.domain.errors import Unauthenticated
from streamgate.plugins.api_gateway.limits import Meter, marks, refusal
from streamgate.runtime.identity import REFUSED
from streamgate.runtime.rpc.admission import Arriving, Metadata, permit

SIGN_IN = (Access.challenge, Access.sign_in, Access.refresh)


class CallDoor:
    """Implements `runtime.rpc.admission.Door`: counts a call, then lets it pass if its method is open to whoever makes it.

    A service token opens nothing here. The owning service verifies the credential again.
    """

    def __init__(self, meter: Meter) -> None:
        self._meter = meter

    async def admit(self, call: Arriving) -> Metadata:
        bucket, caller = await self._meter.read(call.authorization, call.address)
        if call.rpc.function in SIGN_IN:
            bucket = self._meter.signing_in(call.address)
        verdict = await self._meter.take(bucket)
        if verdict is not None and not verdict.allowed:
            raise refusal(bucket, verdict)
        if caller is None:
            raise Unauthenticated(REFUSED)
        permit(call.rpc, caller, known=call.authorization is not None)
        return marks(bucket, verdict) if verdict is not None else ()
