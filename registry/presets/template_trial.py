"""Compiles a chat template and renders short chats with it, in a process with limits of time and memory.

python -m registry.presets.template_trial < template      prints what is wrong with it, or nothing
"""

import asyncio
import resource
import sys

from atelier.errors import InvalidTemplate
from atelier.templates.chat_template import ChatTemplate

SECONDS = 10.0
MOST_MEMORY = 2**30  # bytes of address space
CHATS = (
    [{"role": "user", "content": "Hello!"}],
    [
        {"role": "user", "content": "Hello!"},
        {"role": "assistant", "content": "Good day."},
        {"role": "user", "content": "How are you?"},
    ],
)


async def try_template(template: str) -> str | None:
    """What is wrong with the template; None if nothing."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "registry.presets.template_trial"),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.DEVNULL,
    )
    try:
        async with asyncio.timeout(SECONDS):
            output, _ = await process.communicate(template.encode())
    except TimeoutError:
        return "The chat template takes too long to render."
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    if process.returncode not in (0, 1):
        return "The chat template takes too much memory."
    fault = output.decode(errors="replace").strip()
    return (fault or "The chat template cannot be used.") if process.returncode else None


def main() -> int:
    resource.setrlimit(resource.RLIMIT_AS, (MOST_MEMORY, MOST_MEMORY))
    try:
        template = ChatTemplate(sys.stdin.read())
        for chat in CHATS:
            template.render(chat, bos="<s>", eos="</s>")
    except InvalidTemplate as error:
        print(error.message)
        return 1
    except MemoryError:
        return 2
    except Exception as error:  # jinja2 and Python's compiler raise many kinds
        print(f"The chat template does not compile: {type(error).__name__}: {error}")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
