"""The settings, in LM Studio's three groups.

Inference defaults are LM Studio's. None means unset: the engine or the model decides.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from atelier.lora_adapters import MOST_ADAPTERS
from atelier.settings.declaration import setting

KV_TYPES = ("f32", "f16", "bf16", "q8_0", "q5_1", "q5_0", "q4_1", "q4_0", "iq4_nl")
ROPE_SCALINGS = ("none", "linear", "yarn")
SPECULATIONS = ("off", "auto", "prompt_lookup", "draft_model")
SPLIT_MODES = ("layer", "none")
STOP_AT_LIMIT, TRUNCATE_MIDDLE, ROLLING_WINDOW = "stopAtLimit", "truncateMiddle", "rollingWindow"  # LM Studio's names
# Those of worker/output/family_table.py.
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
LONGEST_MARK = 200  # characters of a reasoning marker
LONGEST_MESSAGE = 1000  # characters before a forced end of reasoning
LONGEST_NAME = 300  # characters of a device list or a model's name
LONGEST_TEXT = 100_000  # characters of a system prompt or a template
MOST_LAYERS = 512  # LLAMA_MAX_LAYERS
UNLIMITED = -1  # a reasoning_budget
MAX_SEED = 2**32 - 2  # 2**32 - 1 is llama.cpp's LLAMA_DEFAULT_SEED: a random seed


@dataclass(frozen=True, slots=True, kw_only=True)
class Load:
    """Fixed when an instance starts."""

    context_length: int = setting(
        4096,
        "Maximum length of a sequence, prompt and completion together; more than the model was trained for only with "
        "RoPE scaling.",
        minimum=128,
        maximum=2**24,
        unit="tokens",
        llama="n_ctx",
        lmstudio="context_length",
        preset_key="llm.load.contextLength",
    )
    parallel: int = setting(
        8,
        "Maximum sequences decoded at the same time.",
        minimum=1,
        maximum=256,
        unit="sequences",
        llama="n_seq_max",
        lmstudio="parallel",
        preset_key="llm.load.numParallelSessions",
    )
    rope_scaling: str | None = setting(
        None,
        "RoPE scaling, for contexts longer than the model was trained for; none: without; unset: as the model's file "
        "says.",
        choices=ROPE_SCALINGS,
        llama="rope_scaling_type",
        lmstudio="rope_scaling",
    )
    rope_freq_scale: float | None = setting(
        None,
        "RoPE frequency scale, such as 0.5 for a context of twice the trained length; unset: the model's, or with "
        "rope_scaling what context_length requires.",
        minimum=0.001,
        maximum=10,
        llama="rope_freq_scale",
        lmstudio="rope_freq_scale",
        preset_key="llm.load.llama.ropeFrequencyScale",
    )
    rope_freq_base: float | None = setting(
        None,
        "RoPE base frequency (NTK-aware scaling raises it); unset: the model's.",
        minimum=1,
        maximum=1e12,
        llama="rope_freq_base",
        lmstudio="rope_freq_base",
        preset_key="llm.load.llama.ropeFrequencyBase",
    )
    yarn_original_context: int | None = setting(
        None,
        "YaRN: context length of the model before scaling; unset: the model's.",
        minimum=1,
        maximum=2**24,
        unit="tokens",
        llama="yarn_orig_ctx",
        lmstudio="yarn_original_context",
    )
    yarn_ext_factor: float | None = setting(
        None,
        "YaRN: weight of extrapolation, from 0 (interpolation alone) to 1; unset: the model's, or 1.",
        minimum=0,
        maximum=1,
        llama="yarn_ext_factor",
        lmstudio="yarn_ext_factor",
    )
    yarn_beta_fast: float | None = setting(
        None,
        "YaRN: rotations over the original context above which a dimension is not scaled; unset: the model's, or 32.",
        minimum=0,
        maximum=10_000,
        llama="yarn_beta_fast",
        lmstudio="yarn_beta_fast",
    )
    yarn_beta_slow: float | None = setting(
        None,
        "YaRN: rotations over the original context below which a dimension is scaled fully; unset: the model's, or 1.",
        minimum=0,
        maximum=10_000,
        llama="yarn_beta_slow",
        lmstudio="yarn_beta_slow",
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
        "CPU cores that the worker may use, such as 0-3,6; unset: all cores, divided among the models that compute on "
        "the CPU at the same time.",
        longest=LONGEST_NAME,
        lmstudio="cores",
    )
    threads: int | None = setting(
        None,
        "Compute threads; unset: one per physical core that the worker may use.",
        minimum=1,
        maximum=1024,
        unit="threads",
        llama="n_threads",
        lmstudio="threads",
        preset_key="llm.load.llama.cpuThreadPoolSize",
    )
    threads_batch: int | None = setting(
        None,
        "Compute threads for calls with more than one token: prompts, and several sequences; unset: as threads.",
        minimum=1,
        maximum=1024,
        unit="threads",
        llama="n_threads_batch",
        lmstudio="threads_batch",
    )
    gpu_layers: int | None = setting(
        None,
        "Layers to put on the GPU; unset: all.",
        minimum=0,
        maximum=10_000,
        unit="layers",
        llama="n_gpu_layers",
        lmstudio="gpu_layers",
    )
    tensor_split: list[float] = setting(
        [],
        "Relative share of the model on each device; unset: by free memory.",
        minimum=0,
        max_items=128,
        llama="tensor_split",
        lmstudio="tensor_split",
    )
    split_mode: str = setting(
        "layer",
        "Several GPUs: layer gives each of them some of the layers, with their KV cache; none uses main_gpu alone.",
        choices=SPLIT_MODES,
        llama="split_mode",
        lmstudio="split_mode",
    )
    main_gpu: int = setting(
        0,
        "GPU that split_mode none uses, by its position among those of device, from 0.",
        minimum=0,
        maximum=127,
        llama="main_gpu",
        lmstudio="main_gpu",
    )
    cpu_moe: bool = setting(
        False,
        "Mixtures of experts: keep the experts of all layers in main memory, the rest on the GPU.",
        llama="tensor_buft_overrides",
        lmstudio="cpu_moe",
    )
    cpu_moe_layers: int = setting(
        0,
        "Mixtures of experts: keep the experts of this many layers, from the first, in main memory.",
        minimum=0,
        maximum=MOST_LAYERS,
        unit="layers",
        llama="tensor_buft_overrides",
        lmstudio="cpu_moe_layers",
    )
    override_tensor: list[str] = setting(
        [],
        "Devices of tensors, by a regular expression that is searched in their names; the first that matches applies. "
        "A device is cpu, or one of those that device names.",
        max_items=32,
        longest=200,
        form="PATTERN=DEVICE",
        llama="tensor_buft_overrides",
        lmstudio="override_tensor",
    )
    num_experts: int | None = setting(
        None,
        "Mixtures of experts: experts that are used for each token; unset: as many as the model was trained with.",
        minimum=1,
        maximum=1024,
        unit="experts",
        llama="kv_overrides",
        lmstudio="num_experts",
        preset_key="llm.load.numExperts",
    )
    kv_type: str = setting(
        "f16",
        "Data type of the KV cache, both of its keys and of its values.",
        choices=KV_TYPES,
        llama="type_k, type_v",
        lmstudio="kv_type",
    )
    k_type: str | None = setting(
        None,
        "Data type of the keys in the KV cache; unset: kv_type.",
        choices=KV_TYPES,
        llama="type_k",
        lmstudio="k_type",
        preset_key="llm.load.llama.kCacheQuantizationType",
    )
    v_type: str | None = setting(
        None,
        "Data type of the values in the KV cache; unset: kv_type. A quantised type requires flash attention.",
        choices=KV_TYPES,
        llama="type_v",
        lmstudio="v_type",
        preset_key="llm.load.llama.vCacheQuantizationType",
    )
    flash_attention: bool | None = setting(
        None,
        "Flash attention; unset: on if the device supports it. On a CPU, long contexts are faster without it.",
        llama="flash_attn_type",
        lmstudio="flash_attention",
        preset_key="llm.load.llama.flashAttention",
    )
    batch_size: int = setting(
        2048,
        "Maximum tokens in one llama_decode call.",
        minimum=32,
        maximum=65_536,
        unit="tokens",
        llama="n_batch",
        lmstudio="eval_batch_size",
        preset_key="llm.load.llama.evalBatchSize",
    )
    ubatch_size: int = setting(
        512,
        "Maximum tokens in one compute graph.",
        minimum=32,
        maximum=65_536,
        unit="tokens",
        llama="n_ubatch",
        lmstudio="physical_batch_size",
    )
    prefill_pause: float = setting(
        2.0,
        "Time that prompts take of each step while other sequences decode, in durations of a decode step: the higher, "
        "the sooner a prompt is read and the longer the streams pause. Where more prompts wait than sequences decode, "
        "they take as many times that; deep in a long text, a small call may take longer.",
        minimum=0,
        maximum=10_000,
        unit="steps",
        lmstudio="prefill_pause",
    )
    reproducible: bool = setting(
        False,
        "The same text from the same prompt and seed, alone and in company, with a cold cache and a warm one. Needs "
        "quantised weights and a CPU; long prompts are read at about half the speed.",
        lmstudio="reproducible",
    )
    mmap: bool = setting(
        True,
        "Map the model file into memory.",
        llama="load_mode",
        lmstudio="mmap",
        preset_key="llm.load.llama.tryMmap",
    )
    mlock: bool = setting(
        False,
        "Lock the model in memory, so that it is not swapped out.",
        llama="load_mode",
        lmstudio="mlock",
        preset_key="llm.load.llama.keepModelInMemory",
    )
    offload_kv: bool = setting(
        True,
        "Keep the KV cache of GPU layers on the GPU.",
        llama="offload_kqv",
        lmstudio="offload_kv_cache_to_gpu",
        preset_key="llm.load.offloadKVCacheToGpu",
    )
    kv_unified: bool = setting(
        False,
        "Share one KV cache among all sequences: one of them may be longer, but results depend on what else runs.",
        llama="kv_unified",
        lmstudio="kv_unified",
        preset_key="llm.load.useUnifiedKvCache",
    )
    swa_full: bool = setting(
        False,
        "Keep the whole context of layers with a sliding window, not the window alone: takes more memory, and prompt "
        "prefixes can be reused. With kv_unified it has no effect on reuse.",
        llama="swa_full",
        lmstudio="swa_full",
    )
    checkpoints: int = setting(
        4,
        "Copies of the state that each sequence may keep of a model with recurrent layers or a sliding window, so that "
        "later prompts continue from them. They are in host memory; idle sequences leave theirs to others.",
        minimum=0,
        maximum=1024,
        unit="copies",
        lmstudio="checkpoints",
    )
    cache_ram: int | None = setting(
        None,
        "Host memory for prompt prefixes evicted from the KV cache; 0: none; unset: a quarter of the memory that is "
        "free beside the model, at most 8 GiB, which makes way when other models need it.",
        minimum=0,
        maximum=2**24,
        unit="MiB",
        lmstudio="cache_ram",
    )
    cache_disk: int = setting(
        0,
        "Disk space, in the home, for prefixes that exceed the host memory; kept after the worker exits; 0: none.",
        minimum=0,
        maximum=2**24,
        unit="MiB",
        lmstudio="cache_disk",
    )
    speculation: str = setting(
        "off",
        "Speculative decoding: auto drafts what followed the same tokens before, in the text or in earlier answers to "
        "the same client, for models that support it; prompt_lookup in the text alone; draft_model drafts with a "
        "smaller model, and is the default if draft_model is set. Tokens are drafted only where that is measured to "
        "gain speed. With reproducible, and quantised weights on a CPU, the output is the same as without. Draft heads "
        "that are part of a model (MTP) are not used.",
        choices=SPECULATIONS,
        lmstudio="speculation",
    )
    draft_model: str | None = setting(
        None,
        "Key, or its short form, of a small model with the same vocabulary, for speculative decoding.",
        longest=LONGEST_NAME,
        lmstudio="draft_model",
    )
    draft_tokens: int = setting(
        16,
        "Maximum tokens to draft at a time; fewer are drafted where more would not gain speed.",
        minimum=1,
        maximum=16,
        unit="tokens",
        lmstudio="draft_tokens",
    )
    lora: list[str] = setting(
        [],
        "LoRA adapters: files below the home's adapters folder. Default name: the file's without .gguf; default "
        "scale: 1.",
        max_items=MOST_ADAPTERS,
        longest=4096,
        form="[NAME=]FILE[=SCALE]",
        llama="lora",
        lmstudio="lora",
    )
    load_seed: int | None = setting(
        None,
        "Seed of requests that set none; unset: a new seed for each request.",
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
        "System message of chats that have none.",
        longest=LONGEST_TEXT,
        preset_key="llm.prediction.systemPrompt",
    )
    chat_template: str | None = setting(
        None,
        "Jinja chat template that replaces the model's.",
        longest=LONGEST_TEXT,
        preset_key="llm.prediction.promptTemplate",
    )
    stop: list[str] = setting(
        [],
        "Strings that end a completion; the completion does not include them.",
        max_items=16,
        longest=1024,
        openai="stop",
        lmstudio="stop",
        preset_key="llm.prediction.stopStrings",
    )
    parse_special: bool = setting(
        False,
        "Read control tokens that are written in messages, such as <|im_end|>, as those tokens rather than as text. "
        "Whatever text reaches a message can then end it and speak in another role: for trusted text only.",
        llama="parse_special",
    )
    tool_call_format: str = setting(
        "auto",
        "Format of the model's tool calls; auto: detected from its chat template.",
        choices=TOOL_CALL_FORMATS,
    )
    reasoning_start: str | None = setting(
        None,
        "Start of the model's reasoning, such as <think>; unset: detected from its chat template; empty: no reasoning.",
        longest=LONGEST_MARK,
        preset_key="llm.prediction.reasoning.startString",
    )
    reasoning_end: str | None = setting(
        None,
        "End of the model's reasoning, such as </think>; unset: detected from its chat template.",
        longest=LONGEST_MARK,
        preset_key="llm.prediction.reasoning.endString",
    )
    reasoning_budget_message: str = setting(
        "",
        "Text that precedes the end mark of reasoning that reasoning_budget ends, such as: I have to answer now. "
        "Its tokens are a part of the budget.",
        longest=LONGEST_MESSAGE,
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Inference:
    """How one request samples."""

    temperature: float = setting(
        0.8,
        "Randomness of sampling; 0: always the most likely token.",
        minimum=0,
        maximum=5,
        llama="temp",
        openai="temperature",
        lmstudio="temperature",
        preset_key="llm.prediction.temperature",
    )
    top_k: int = setting(
        40,
        "Sample from this many of the likeliest tokens; 0: from all.",
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
        "Sample from the likeliest tokens whose probabilities add up to this.",
        minimum=0,
        maximum=1,
        llama="top_p",
        openai="top_p",
        lmstudio="top_p",
        preset_key="llm.prediction.topPSampling",
    )
    min_p: float = setting(
        0.05,
        "Drop tokens with less than this fraction of the likeliest token's probability.",
        minimum=0,
        maximum=1,
        llama="min_p",
        openai="min_p",
        lmstudio="min_p",
        preset_key="llm.prediction.minPSampling",
    )
    typical_p: float = setting(
        1.0,
        "Locally typical sampling: sample from the tokens nearest to the average surprise whose probabilities add up "
        "to this; 1 disables it.",
        minimum=0,
        maximum=1,
        llama="typ_p",
        openai="typical_p",
        lmstudio="typical_p",
    )
    top_n_sigma: float = setting(
        -1.0,
        "Keep tokens whose logits are within this many standard deviations of the highest; 0 or less disables it.",
        minimum=-1,
        maximum=1000,
        llama="top_n_sigma",
        openai="top_n_sigma",
        lmstudio="top_n_sigma",
    )
    xtc_probability: float = setting(
        0.0,
        "XTC: chance that all tokens above the threshold but the least likely are dropped; 0 disables it.",
        minimum=0,
        maximum=1,
        llama="xtc_probability",
        openai="xtc_probability",
        lmstudio="xtc_probability",
    )
    xtc_threshold: float = setting(
        0.1,
        "XTC: probability threshold of a token; above 0.5 disables it.",
        minimum=0,
        maximum=1,
        llama="xtc_threshold",
        openai="xtc_threshold",
        lmstudio="xtc_threshold",
    )
    dynatemp_range: float = setting(
        0.0,
        "Dynamic temperature: changes by up to this much in both directions with the tokens' entropy; 0 disables it.",
        minimum=0,
        maximum=5,
        llama="dynatemp_range",
        openai="dynatemp_range",
        lmstudio="dynatemp_range",
    )
    dynatemp_exponent: float = setting(
        1.0,
        "Dynamic temperature: exponent of the normalised entropy.",
        minimum=0,
        maximum=10,
        llama="dynatemp_exponent",
        openai="dynatemp_exponent",
        lmstudio="dynatemp_exponent",
    )
    mirostat: int = setting(
        0,
        "Mirostat version 1 or 2, which targets an average surprise instead of filtering tokens; 0 disables it.",
        minimum=0,
        maximum=2,
        llama="mirostat",
        openai="mirostat",
        lmstudio="mirostat",
    )
    mirostat_tau: float = setting(
        5.0,
        "Mirostat: target surprise.",
        minimum=0,
        maximum=100,
        unit="bits",
        llama="mirostat_tau",
        openai="mirostat_tau",
        lmstudio="mirostat_tau",
    )
    mirostat_eta: float = setting(
        0.1,
        "Mirostat: learning rate.",
        minimum=0,
        maximum=1,
        llama="mirostat_eta",
        openai="mirostat_eta",
        lmstudio="mirostat_eta",
    )
    repeat_penalty: float = setting(
        1.1,
        "Divides the logits of recent tokens; 1 disables it.",
        minimum=0.01,
        maximum=10,
        llama="penalty_repeat",
        openai="repeat_penalty",
        lmstudio="repeat_penalty",
        preset_key="llm.prediction.repeatPenalty",
    )
    repeat_last_n: int = setting(
        64,
        "Recent tokens that the penalties apply to; 0 disables the penalties.",
        minimum=0,
        maximum=2**20,
        unit="tokens",
        llama="penalty_last_n",
        openai="repeat_last_n",
        lmstudio="repeat_last_n",
    )
    presence_penalty: float = setting(
        0.0,
        "Subtracted from the logits of tokens that have occurred.",
        minimum=-2,
        maximum=2,
        llama="penalty_present",
        openai="presence_penalty",
        lmstudio="presence_penalty",
        preset_key="llm.prediction.llama.presencePenalty",
    )
    frequency_penalty: float = setting(
        0.0,
        "Subtracted from the logits of tokens, once per occurrence.",
        minimum=-2,
        maximum=2,
        llama="penalty_freq",
        openai="frequency_penalty",
        lmstudio="frequency_penalty",
        preset_key="llm.prediction.llama.frequencyPenalty",
    )
    dry_multiplier: float = setting(
        0.0,
        "DRY: strength of the penalty on repeated sequences of tokens; 0 disables it.",
        minimum=0,
        maximum=100,
        llama="dry_multiplier",
        openai="dry_multiplier",
        lmstudio="dry_multiplier",
    )
    dry_base: float = setting(
        1.75,
        "DRY: factor of the penalty for each further token of a repetition.",
        minimum=1,
        maximum=100,
        llama="dry_base",
        openai="dry_base",
        lmstudio="dry_base",
    )
    dry_allowed_length: int = setting(
        2,
        "DRY: repetitions of up to this length are not penalised.",
        minimum=0,
        maximum=2**16,
        unit="tokens",
        llama="dry_allowed_length",
        openai="dry_allowed_length",
        lmstudio="dry_allowed_length",
    )
    dry_penalty_last_n: int = setting(
        64,
        "DRY: recent tokens that are searched for repetitions; 0 disables it.",
        minimum=0,
        maximum=2**16,
        unit="tokens",
        llama="dry_penalty_last_n",
        openai="dry_penalty_last_n",
        lmstudio="dry_penalty_last_n",
    )
    dry_sequence_breakers: list[str] = setting(
        ["\n", ":", '"', "*"],
        "DRY: strings at which a repetition ends.",
        max_items=16,
        longest=40,  # llama.cpp truncates them there
        llama="dry_sequence_breakers",
        openai="dry_sequence_breakers",
        lmstudio="dry_sequence_breakers",
    )
    seed: int | None = setting(
        None,
        "Seed of the sampling, which makes a completion reproducible; unset: a new seed for each request.",
        minimum=0,
        maximum=MAX_SEED,
        llama="seed",
        openai="seed",
        lmstudio="seed",
        preset_key="llm.prediction.seed",
    )
    max_tokens: int | None = setting(
        None,
        "Maximum tokens of a completion; unset: up to the end of the context.",
        minimum=1,
        maximum=2**31 - 1,
        unit="tokens",
        openai="max_tokens",
        lmstudio="max_output_tokens",
        preset_key="llm.prediction.maxPredictedTokens",
    )
    reasoning_budget: int | None = setting(
        None,
        "Maximum tokens of a chat's reasoning, after which its end mark is written and the answer begins; 0: no "
        "reasoning; unset or -1: no limit.",
        minimum=UNLIMITED,
        maximum=2**31 - 1,
        unit="tokens",
        llama="reasoning_budget_tokens",
        openai="reasoning_budget",
        lmstudio="reasoning_budget",
        preset_key="llm.prediction.reasoning.budgetTokens",
    )
    context_overflow: str = setting(
        STOP_AT_LIMIT,
        "What to do with a prompt that leaves no room for an answer: stopAtLimit rejects it; truncateMiddle keeps its "
        "beginning and its end; rollingWindow keeps its end. The system messages of a chat are always kept.",
        choices=(STOP_AT_LIMIT, TRUNCATE_MIDDLE, ROLLING_WINDOW),
        openai="context_overflow",
        lmstudio="context_overflow",
        preset_key="llm.prediction.contextOverflowPolicy",
    )
    logit_bias: Mapping[int, float] = setting(
        {},
        "Bias that is added to the logits of tokens, by token id.",
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
        "Continue after the end-of-sequence token.",
        llama="logit_bias",
        openai="ignore_eos",
        lmstudio="ignore_eos",
    )
