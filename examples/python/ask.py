"""Ask the agent something and print its answer as it comes. A person is asked before a tool runs.

Start a server with `make serve`, then: HERMES_WS_KEY=... python examples/python/ask.py "hi"
"""

import asyncio
import os
import sys

from hermes_ws.client import connect
from hermes_ws.protocol.events import InteractionRequested, MessageDelta, RunFailed


async def main(text: str) -> None:
    url = os.environ.get("HERMES_WS_URL", "http://127.0.0.1:8642")
    async with connect(url, "example", key=os.environ.get("HERMES_WS_KEY")) as conversation:
        async for event in conversation.run(text):
            match event:
                case MessageDelta(delta=delta):
                    print(delta, end="", flush=True)
                case InteractionRequested(kind="approval", tool=tool):
                    yes = await asyncio.to_thread(input, f"\nallow {tool}? [y/n] ")
                    await (conversation.approve(event) if yes == "y" else conversation.deny(event))
                case InteractionRequested(questions=[question]):
                    answer = await asyncio.to_thread(input, f"\n{question.prompt} ")
                    await conversation.reply(event, answers={question.id: answer})
                case RunFailed(error=error):
                    sys.exit(f"{error.code}: {error.message}")
    print()


asyncio.run(main(" ".join(sys.argv[1:]) or "hi"))
