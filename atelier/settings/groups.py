"""The settings themselves, in LM Studio's three groups.

Defaults of inference are LM Studio's. None means "not set": the engine or the model decides.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from atelier.adapters import MOST_ADAPTERS
from atelier.settings.declare import setting

KV_TYPES = ("f32", "f16", "bf16", "q8_0", "q5_1", "q5_0", "q4_1", "q4_0", "iq4_nl")
SPECULATIONS = ("off", "prompt_lookup", "draft_model")
STOP_AT_LIMIT, TRUNCATE_MIDDLE, ROLLING_WINDOW = "stopAtLimit", "truncateMiddle", "rollingWindow"  # LM Studio's names
# Those of worker/output/format_table.py.
TOOL_CALL_FORMATS = (
    "auto",
    "json",
    "hermes",
    "llama3-json",
    "pythonic",
    "lfm2",
    "gemma",
    "functiongemma",
    "gemma-4",
    "mistral",
    "mistral-args",
    "functionary-v3.2",
    "function-tag",
    "deepseek-r1",
    "deepseek-v3.1",
    "deepseek-v3.2",
    "deepseek-v4",
    "qwen-coder",
    "seed-oss",
    "minimax-m2",
    "minimax-m3",
    "glm",
    "granite",
    "nemotron",
    "apriel",
    "minimax-m1",
    "firefunction",
    "command-r",
    "command-r7b",
    "apertus",
    "gigachat-3",
    "gigachat-3.1",
    "minicpm5",
    "hy3",
    "solar-open",
    "harmony",
    "muse-glimmer",
    "kimi-k3",
    "kimi-k2",
)
LONGEST_MARK = 200  # characters of a mark in a completion
LONGEST_NAME = 300  # characters of a device list or a model's name
LONGEST_TEXT = 100_000  # characters of a system prompt or a template
MAX_SEED = 2**32 - 2  # 2**32 - 1 means "draw one" to llama.cpp


@dataclass(frozen=True, slots=True, kw_only=True)
class Load:
    """Fixed when an instance starts."""

    context_length: int = setting(
        4096,
        "Longest prompt and completion of one sequence; never more than the model was trained for.",
        minimum=128,
        maximum=2**24,
        unit="tokens",
        llama="n_ctx",
        lmstudio="context_length",
        preset_key="llm.load.contextLength",
    )
    parallel: int = setting(
        8,
        "Sequences decoded at once.",
        minimum=1,
        maximum=256,
        unit="sequences",
        llama="n_seq_max",
        lmstudio="parallel",
        preset_key="llm.load.numParallelSessions",
    )
    device: str = setting(
        "auto",
        "Where the model runs: auto, cpu, or a backend (cuda, rocm, vulkan, rpc) with its device numbers, "
        "such as cuda:1 or cuda:0,1.",
        llama="devices",
        longest=LONGEST_NAME,
        lmstudio="device",
    )
    cores: str | None = setting(
        None,
        "CPU cores the worker may use, such as 0-3,6; unset: every core of the machine, of which models that are at "
        "work in main memory at the same time take disjoint ones.",
        longest=LONGEST_NAME,
        lmstudio="cores",
    )
    threads: int | None = setting(
        None,
        "Threads that compute; unset: one per physical core it may use.",
        minimum=1,
        maximum=1024,
        unit="threads",
        llama="n_threads",
        lmstudio="threads",
        preset_key="llm.load.llama.cpuThreadPoolSize",
    )
    gpu_layers: int | None = setting(
        None,
        "Layers held on the GPU; unset: all of them.",
        minimum=0,
        maximum=10_000,
        unit="layers",
        llama="n_gpu_layers",
        lmstudio="gpu_layers",
    )
    tensor_split: list[float] = setting(
        [],
        "Share of the model on each device; unset: by the room that each has.",
        minimum=0,
        max_items=128,
        llama="tensor_split",
        lmstudio="tensor_split",
    )
    kv_type: str = setting(
        "f16",
        "Type of the KV cache's numbers.",
        choices=KV_TYPES,
        llama="type_k, type_v",
        lmstudio="kv_type",
        preset_key="llm.load.llama.kCacheQuantizationType",
    )
    flash_attention: bool | None = setting(
        None,
        "Flash attention; unset: where the device supports it. On a CPU long contexts are faster without.",
        llama="flash_attn_type",
        lmstudio="flash_attention",
        preset_key="llm.load.llama.flashAttention",
    )
    batch_size: int = setting(
        2048,
        "Most tokens of one llama_decode call.",
        minimum=32,
        maximum=65_536,
        unit="tokens",
        llama="n_batch",
        lmstudio="eval_batch_size",
        preset_key="llm.load.llama.evalBatchSize",
    )
    ubatch_size: int = setting(
        512,
        "Most tokens of one compute graph.",
        minimum=32,
        maximum=65_536,
        unit="tokens",
        llama="n_ubatch",
        lmstudio="physical_batch_size",
    )
    mmap: bool = setting(
        True,
        "Map the file into memory.",
        llama="load_mode",
        lmstudio="mmap",
        preset_key="llm.load.llama.tryMmap",
    )
    mlock: bool = setting(
        False,
        "Keep the model from being swapped out.",
        llama="load_mode",
        lmstudio="mlock",
        preset_key="llm.load.llama.keepModelInMemory",
    )
    offload_kv: bool = setting(
        True,
        "Hold the KV cache of GPU layers on the GPU.",
        llama="offload_kqv",
        lmstudio="offload_kv_cache_to_gpu",
        preset_key="llm.load.offloadKVCacheToGpu",
    )
    kv_unified: bool = setting(
        False,
        "One KV cache shared by all sequences: one sequence may grow longer, "
        "but results then depend on what else runs.",
        llama="kv_unified",
        lmstudio="kv_unified",
        preset_key="llm.load.useUnifiedKvCache",
    )
    cache_ram: int = setting(
        0,
        "Host memory for beginnings of prompts that lost their place in the KV cache; 0: none.",
        minimum=0,
        maximum=2**24,
        unit="MiB",
        lmstudio="cache_ram",
    )
    cache_disk: int = setting(
        0,
        "Room on the disk, below the home, for those that host memory has none for; it outlasts the worker; 0: none.",
        minimum=0,
        maximum=2**24,
        unit="MiB",
        lmstudio="cache_disk",
    )
    speculation: str = setting(
        "off",
        "Guess tokens ahead and check several at once: prompt_lookup takes what followed the same words before, "
        "draft_model what a smaller model says, and is meant where a draft_model is named. "
        "With quantised weights on a CPU the text stays the same.",
        choices=SPECULATIONS,
        lmstudio="speculation",
    )
    draft_model: str | None = setting(
        None,
        "Key, or its short form, of a small model with the same vocabulary, which guesses ahead.",
        longest=LONGEST_NAME,
        lmstudio="draft_model",
    )
    draft_tokens: int = setting(
        4,
        "Most tokens to guess ahead.",
        minimum=1,
        maximum=16,
        unit="tokens",
        lmstudio="draft_tokens",
    )
    lora: list[str] = setting(
        [],
        "LoRA adapters: files below the home's adapters folder. One is called as its file, without .gguf, "
        "and has the scale 1, unless the entry says otherwise.",
        max_items=MOST_ADAPTERS,
        longest=4096,
        form="[NAME=]FILE[=SCALE]",
        llama="lora",
        lmstudio="lora",
    )
    load_seed: int | None = setting(
        None,
        "Seed of requests that name none; unset: a new one for each request.",
        minimum=0,
        maximum=MAX_SEED,
        lmstudio="seed",
        preset_key="llm.load.seed",
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Prompt:
    """How messages become a prompt, and where a completion ends."""

    system_prompt: str | None = setting(
        None,
        "System message for chats that have none.",
        longest=LONGEST_TEXT,
        preset_key="llm.prediction.systemPrompt",
    )
    chat_template: str | None = setting(
        None,
        "Jinja template in place of the model's.",
        longest=LONGEST_TEXT,
        preset_key="llm.prediction.promptTemplate",
    )
    stop: list[str] = setting(
        [],
        "Strings that end a completion; they are not part of it.",
        max_items=16,
        longest=1024,
        openai="stop",
        lmstudio="stop",
        preset_key="llm.prediction.stopStrings",
    )
    tool_call_format: str = setting(
        "auto",
        "How the model writes tool calls; auto: as its chat template says.",
        choices=TOOL_CALL_FORMATS,
    )
    reasoning_start: str | None = setting(
        None,
        "What begins the model's reasoning, such as <think>; unset: as its chat template says. Empty: nothing does.",
        longest=LONGEST_MARK,
        preset_key="llm.prediction.reasoning.startString",
    )
    reasoning_end: str | None = setting(
        None,
        "What ends the model's reasoning, such as </think>; unset: as its chat template says.",
        longest=LONGEST_MARK,
        preset_key="llm.prediction.reasoning.endString",
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Inference:
    """How one request samples."""

    temperature: float = setting(
        0.8,
        "Randomness; 0 takes the most likely token.",
        minimum=0,
        maximum=5,
        llama="temp",
        openai="temperature",
        lmstudio="temperature",
        preset_key="llm.prediction.temperature",
    )
    top_k: int = setting(
        40,
        "Sample from this many likeliest tokens; 0: from all.",
        minimum=0,
        maximum=1_000_000,
        unit="tokens",
        llama="top_k",
        openai="top_k",
        lmstudio="top_k",
        preset_key="llm.prediction.topKSampling",
    )
    top_p: float = setting(
        0.95,
        "Sample from the likeliest tokens that reach this probability together.",
        minimum=0,
        maximum=1,
        llama="top_p",
        openai="top_p",
        lmstudio="top_p",
        preset_key="llm.prediction.topPSampling",
    )
    min_p: float = setting(
        0.05,
        "Drop tokens less likely than this share of the likeliest one's probability.",
        minimum=0,
        maximum=1,
        llama="min_p",
        openai="min_p",
        lmstudio="min_p",
        preset_key="llm.prediction.minPSampling",
    )
    typical_p: float = setting(
        1.0,
        "Sample from the tokens whose surprise is nearest to the average, up to this probability together; 1 is off.",
        minimum=0,
        maximum=1,
        llama="typ_p",
        openai="typical_p",
        lmstudio="typical_p",
    )
    top_n_sigma: float = setting(
        -1.0,
        "Keep tokens whose logits are within this many standard deviations of the highest; 0 or less is off.",
        minimum=-1,
        maximum=1000,
        llama="top_n_sigma",
        openai="top_n_sigma",
        lmstudio="top_n_sigma",
    )
    xtc_probability: float = setting(
        0.0,
        "Chance that all likely tokens but the least likely of them are left out of a draw; 0 is off.",
        minimum=0,
        maximum=1,
        llama="xtc_probability",
        openai="xtc_probability",
        lmstudio="xtc_probability",
    )
    xtc_threshold: float = setting(
        0.1,
        "Probability from which XTC holds a token for likely; above 0.5 it is off.",
        minimum=0,
        maximum=1,
        llama="xtc_threshold",
        openai="xtc_threshold",
        lmstudio="xtc_threshold",
    )
    dynatemp_range: float = setting(
        0.0,
        "The temperature goes up and down by this much with the entropy of the tokens; 0 is off.",
        minimum=0,
        maximum=5,
        llama="dynatemp_range",
        openai="dynatemp_range",
        lmstudio="dynatemp_range",
    )
    dynatemp_exponent: float = setting(
        1.0,
        "How entropy becomes temperature, with dynatemp_range.",
        minimum=0,
        maximum=10,
        llama="dynatemp_exponent",
        openai="dynatemp_exponent",
        lmstudio="dynatemp_exponent",
    )
    mirostat: int = setting(
        0,
        "Aim at an average surprise instead of filtering: Mirostat version 1 or 2; 0 is off.",
        minimum=0,
        maximum=2,
        llama="mirostat",
        openai="mirostat",
        lmstudio="mirostat",
    )
    mirostat_tau: float = setting(
        5.0,
        "The surprise that Mirostat aims at.",
        minimum=0,
        maximum=100,
        unit="bits",
        llama="mirostat_tau",
        openai="mirostat_tau",
        lmstudio="mirostat_tau",
    )
    mirostat_eta: float = setting(
        0.1,
        "How fast Mirostat adapts.",
        minimum=0,
        maximum=1,
        llama="mirostat_eta",
        openai="mirostat_eta",
        lmstudio="mirostat_eta",
    )
    repeat_penalty: float = setting(
        1.1,
        "Divides the logits of recent tokens; 1 is off.",
        minimum=0.01,
        maximum=10,
        llama="penalty_repeat",
        openai="repeat_penalty",
        lmstudio="repeat_penalty",
        preset_key="llm.prediction.repeatPenalty",
    )
    repeat_last_n: int = setting(
        64,
        "Recent tokens that the penalties look at; 0 is off.",
        minimum=0,
        maximum=2**20,
        unit="tokens",
        llama="penalty_last_n",
        openai="repeat_last_n",
        lmstudio="repeat_last_n",
    )
    presence_penalty: float = setting(
        0.0,
        "Subtracted from the logits of tokens that occurred.",
        minimum=-2,
        maximum=2,
        llama="penalty_present",
        openai="presence_penalty",
        lmstudio="presence_penalty",
        preset_key="llm.prediction.llama.presencePenalty",
    )
    frequency_penalty: float = setting(
        0.0,
        "Subtracted from the logits of tokens once per occurrence.",
        minimum=-2,
        maximum=2,
        llama="penalty_freq",
        openai="frequency_penalty",
        lmstudio="frequency_penalty",
        preset_key="llm.prediction.llama.frequencyPenalty",
    )
    dry_multiplier: float = setting(
        0.0,
        "Strength of DRY, which keeps a text from repeating sequences of tokens; 0 is off.",
        minimum=0,
        maximum=100,
        llama="dry_multiplier",
        openai="dry_multiplier",
        lmstudio="dry_multiplier",
    )
    dry_base: float = setting(
        1.75,
        "DRY multiplies its penalty by this for each further token of a repetition.",
        minimum=1,
        maximum=100,
        llama="dry_base",
        openai="dry_base",
        lmstudio="dry_base",
    )
    dry_allowed_length: int = setting(
        2,
        "Repetitions of up to this length cost nothing.",
        minimum=0,
        maximum=2**16,
        unit="tokens",
        llama="dry_allowed_length",
        openai="dry_allowed_length",
        lmstudio="dry_allowed_length",
    )
    dry_penalty_last_n: int = setting(
        64,
        "Recent tokens in which DRY looks for repetitions; 0 is off.",
        minimum=0,
        maximum=2**16,
        unit="tokens",
        llama="dry_penalty_last_n",
        openai="dry_penalty_last_n",
        lmstudio="dry_penalty_last_n",
    )
    dry_sequence_breakers: list[str] = setting(
        ["\n", ":", '"', "*"],
        "Strings that DRY lets no repetition extend across.",
        max_items=16,
        longest=40,  # llama.cpp cuts them there
        llama="dry_sequence_breakers",
        openai="dry_sequence_breakers",
        lmstudio="dry_sequence_breakers",
    )
    seed: int | None = setting(
        None,
        "Makes a completion reproducible; unset: a new one for each request.",
        minimum=0,
        maximum=MAX_SEED,
        llama="seed",
        openai="seed",
        lmstudio="seed",
        preset_key="llm.prediction.seed",
    )
    max_tokens: int | None = setting(
        None,
        "Most tokens of a completion; unset: up to the end of the context.",
        minimum=1,
        maximum=2**31 - 1,
        unit="tokens",
        openai="max_tokens",
        lmstudio="max_output_tokens",
        preset_key="llm.prediction.maxPredictedTokens",
    )
    context_overflow: str = setting(
        STOP_AT_LIMIT,
        "What becomes of a prompt that leaves no room for its answer: stopAtLimit refuses it, truncateMiddle keeps "
        "its beginning and its end, rollingWindow its end. Of chats, the system's messages stay.",
        choices=(STOP_AT_LIMIT, TRUNCATE_MIDDLE, ROLLING_WINDOW),
        openai="context_overflow",
        lmstudio="context_overflow",
        preset_key="llm.prediction.contextOverflowPolicy",
    )
    logit_bias: Mapping[int, float] = setting(
        {},
        "Added to the logits of these tokens, by token id.",
        minimum=-100,
        maximum=100,
        max_items=1024,
        llama="logit_bias",
        openai="logit_bias",
        lmstudio="logit_bias",
        preset_key="llm.prediction.logitBias",
    )
    ignore_eos: bool = setting(
        False,
        "Go on after the end-of-sequence token.",
        llama="logit_bias",
        openai="ignore_eos",
        lmstudio="ignore_eos",
    )
