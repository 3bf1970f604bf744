"""`python -m tests.bench.reproducibility`: is a text the same alone, beside others, with warm and shared caches?

One worker process with the real model. Every prompt is answered alone on a cold cache first; then
the same prompts are answered under each condition, and the texts are compared. Prints how many agree.
"""

import argparse
import asyncio
import tempfile
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from atelier.settings import Load
from tests.bench.bench_models import STARTER, add_load_option, add_model_option
from tests.bench.words import Words
from tests.support.worker.worker_client import WorkerClient
from tests.support.worker.worker_process import worker_process

LENGTHS = (8, 20, 45, 90, 220)  # words: within one slice, and beyond the cells where kernels change
AT_ONCE = 8
PATIENCE = 300.0  # seconds for a text: models of billions of parameters on two cores
Texts = list[str]


@dataclass(frozen=True, slots=True)
class Job:
    """A prompt and how it is sampled."""

    text: str
    sampling: dict[str, Any]


Condition = Callable[[WorkerClient, list[Job]], Coroutine[Any, Any, Texts]]


def jobs(count: int, tokens: int, *, seeded: bool) -> list[Job]:
    """Prompts of several lengths, in pairs that share most of their words."""
    made = []
    for number in range(count):
        shared = Words("reproducibility", number // 2).draw(LENGTHS[number // 2 % len(LENGTHS)])
        text = f"Continue this: {shared} {Words('own', number).draw(3)}"
        sampling = {"temperature": 0.8, "seed": number} if seeded else {"temperature": 0.0}
        made.append(Job(text, {**sampling, "max_tokens": tokens}))
    return made


async def one(client: WorkerClient, call: int, job: Job) -> str:
    await client.submit(call, job.text, sampling=job.sampling)
    texts, ends = await client.finish(call)
    assert ends[0].HasField("finished"), ends[0].failed.error.message
    return texts[0]


async def alone(client: WorkerClient, work: list[Job]) -> Texts:
    return [await one(client, number, job) for number, job in enumerate(work)]


async def in_company(client: WorkerClient, work: list[Job]) -> Texts:
    """Always as many at once as there are slots: prompts arrive while others are decoded."""
    places = asyncio.Semaphore(AT_ONCE)

    async def placed(number: int, job: Job) -> str:
        async with places:
            return await one(client, number, job)

    return list(await asyncio.gather(*(placed(number, job) for number, job in enumerate(work))))


async def from_running(client: WorkerClient, work: list[Job]) -> Texts:
    """Each prompt while its twin, which shares its beginning, is being computed or decoded."""
    found: Texts = []
    for first in range(0, len(work), 2):
        pair = work[first : first + 2]
        found += await asyncio.gather(*(one(client, first + i, job) for i, job in enumerate(pair)))
    return found


@asynccontextmanager
async def worker(model: Path, **load: Any) -> AsyncIterator[WorkerClient]:
    settings = Load(context_length=1024, parallel=AT_ONCE, **load)
    with tempfile.TemporaryDirectory() as directory:
        launched = worker_process(Path(directory), model, settings)
        async with launched as spec, WorkerClient(spec, patience=PATIENCE) as client:
            yield client


async def measure(model: Path, count: int, tokens: int, load: dict[str, Any]) -> None:
    for seeded in (False, True):
        work = jobs(count, tokens, seeded=seeded)
        print(f"{count} prompts, {'temperature 0.8 with seeds' if seeded else 'temperature 0'}", flush=True)
        async with worker(model, **load) as client:
            expected = await alone(client, work)
            await compare("in company of 8", in_company, client, work, expected)
            await compare("again alone, cache warm", alone, client, list(reversed(work)), list(reversed(expected)))
        async with worker(model, **load) as client:
            await compare("beside a running twin", from_running, client, work, expected)
        async with worker(model, **load, speculation="prompt_lookup") as client:
            await compare("with speculation, alone", alone, client, work, expected)
            await compare("with speculation, in company", in_company, client, work, expected)


async def compare(name: str, condition: Condition, client: WorkerClient, work: list[Job], expected: Texts) -> None:
    texts = await condition(client, work)
    same = sum(a == b for a, b in zip(texts, expected, strict=True))
    print(f"  {name:<30} {same:>4} of {len(work)}", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.bench.reproducibility", description=__doc__)
    add_model_option(parser, STARTER)
    add_load_option(parser)
    parser.add_argument("--prompts", type=int, default=200)
    parser.add_argument("--tokens", type=int, default=24, help="tokens of each answer")
    parser.add_argument("--kv-type", default="f16")
    parser.add_argument("--no-flash-attention", action="store_true")
    parser.add_argument("--free", action="store_true", help="load with the setting reproducible off")
    options = parser.parse_args()
    load: dict[str, Any] = {"kv_type": options.kv_type, "reproducible": not options.free, **options.load}
    if options.no_flash_attention:
        load["flash_attention"] = False
    asyncio.run(measure(options.model, options.prompts, options.tokens, load))


if __name__ == "__main__":
    main()
