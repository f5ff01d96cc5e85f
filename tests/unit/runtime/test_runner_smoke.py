from __future__ import annotations
import asyncio
import msgspec
from streamgate.adapters.bus_memory import MemoryBus
from streamgate.domain.clock import SystemClock
from streamgate.runtime.jobs import Jobs, Attempt
class P(msgspec.Struct):
    n: int
async def test_smoke(database) -> None:
    async with MemoryBus() as bus:
        jobs = Jobs(database, bus, SystemClock())
        seen=[]
        async def handle(a: Attempt) -> None:
            seen.append(a.payload(P).n)
        async with jobs.runner("q", {"k": handle}, slots=2):
            import time
            t=time.time()
            async with database.write() as tx:
                for n in range(5):
                    await jobs.submit(tx, "k", P(n), queue="q", priority=5-n)
            while len(seen)<5: await asyncio.sleep(0.01)
            print(time.time()-t)
            await asyncio.sleep(0.1)
        assert [j.state for j in await jobs.find()]==["done"]*5
        assert seen[:1]==[4]
