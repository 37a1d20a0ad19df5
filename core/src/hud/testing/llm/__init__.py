"""Simulated model providers on loopback: what they say is scripted, what goes wrong is planned.

```python
async with ModelServer(script(Turn(calls=[Call("bash", {"command": "ls"})]), Turn("done"))) as server:
    client = anthropic.AsyncAnthropic(base_url=server.url, api_key="x")
```
"""

from hud.testing.llm.faults import Fault as Fault
from hud.testing.llm.faults import FaultPlan as FaultPlan
from hud.testing.llm.faults import RateLimit as RateLimit
from hud.testing.llm.faults import first as first
from hud.testing.llm.faults import share as share
from hud.testing.llm.server import ModelServer as ModelServer
from hud.testing.llm.turns import Ask as Ask
from hud.testing.llm.turns import Call as Call
from hud.testing.llm.turns import Dialect as Dialect
from hud.testing.llm.turns import Responder as Responder
from hud.testing.llm.turns import Result as Result
from hud.testing.llm.turns import Said as Said
from hud.testing.llm.turns import Turn as Turn
from hud.testing.llm.turns import script as script
