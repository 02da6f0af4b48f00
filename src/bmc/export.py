"""Export a trained model to Ollama: a folder with its weights and a Modelfile, which `ollama create` reads.

Ollama's templates are Go's, ours Jinja's. What the Jinja template writes around the turns of some conversations is read
off, and the Go template writes the same; one that isn't made of such parts is refused.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .config import ExportConfig
from .data.tokenization import turn_end
from .errors import user_error
from .models import ADAPTER, check_model, load_tokenizer
from .runs import claim_output_dir, refuse_in_place, run_fingerprint

# architectures that Ollama's convert/convert.go knows; it has no Mistral 7B, which is a Llama within its sliding window
CONVERTED = {
    "LlamaForCausalLM", "MixtralForCausalLM", "GemmaForCausalLM", "Gemma2ForCausalLM", "Gemma3ForCausalLM",
    "Phi3ForCausalLM", "Qwen2ForCausalLM", "Qwen3ForCausalLM", "Olmo3ForCausalLM", "CohereForCausalLM",
    "GptOssForCausalLM", "DeepseekV3ForCausalLM",
}  # fmt: skip
AS_LLAMA = "MistralForCausalLM"
COPIED = ("*.safetensors", "*.safetensors.index.json", "generation_config.json", "tokenizer.json", "tokenizer.model")
LONGEST = 8192  # tokens of context, at most: Ollama reserves memory for all of them
MARKS = ("xqsystemqx", "xqfirstqx", "xqreplyqx", "xqsecondqx", "xqanswerqx", "xqthirdqx")
Render = Callable[[list[dict[str, str]], bool], str]


@dataclass(frozen=True)
class Parts:
    """What a chat template writes around the contents of turns."""

    start: str  # before the first user turn, where there is no system turn
    # before and behind a system turn that stands first; None where the template takes none
    system: tuple[str, str] | None
    prompt: str  # behind the last user turn: the generation prompt
    # between a user turn and the assistant's; None where the template takes one question alone
    reply: str | None = None
    following: str = ""  # between an assistant's turn and the user's next

    def write(self, messages: list[dict[str, str]]) -> str:
        """Render a conversation that ends with a user turn, as the Go template does."""
        text, last = self.start, messages[0]
        if last["role"] == "system" and self.system:
            text, messages = last["content"].join(self.system), messages[1:]
        for place, message in enumerate(messages):
            between = "" if not place else self.reply if message["role"] == "assistant" else self.following
            text += (between or "") + message["content"]
        return text + self.prompt


def read_parts(render: Render) -> Parts | None:
    """Read a template's parts off what it renders; None where it isn't made of such parts.

    `render` takes a conversation and whether to add a generation prompt, and raises where the template refuses it.
    """
    system, first, reply, second, answer, third = MARKS

    def rendered(*turns: str, prompt: bool = True) -> str | None:
        roles = {system: "system", reply: "assistant", answer: "assistant"}
        messages = [{"role": roles.get(turn, "user"), "content": turn} for turn in turns]
        try:
            text = render(messages, prompt)
        except Exception:  # whatever the template raises
            return None
        return text if all(text.count(turn) == 1 for turn in turns) else None

    def between(text: str | None, *turns: str) -> list[str]:
        """Cut a text at the turns; an empty list where they aren't there in this order."""
        parts = []
        for turn in turns:
            part, found, text = (text or "").partition(turn)
            if not found:
                return []
            parts.append(part)
        return [*parts, text or ""]

    alone = between(rendered(first), first)
    if not alone:
        return None
    start, prompt = alone
    turn = between(rendered(system, first), system, first)
    parts = Parts(start, (turn[0], turn[1]) if turn and turn[2] == prompt else None, prompt)
    longer = between(rendered(first, reply, second), first, reply, second)
    if longer:
        parts = Parts(start, parts.system, prompt, longer[1], longer[2])
    for turns in ((first,), (first, reply, second), (first, reply, second, answer, third)):
        for before in ((), (system,)):
            if (len(turns) > 1 and parts.reply is None) or (before and parts.system is None):
                continue
            roles = ("user", "assistant", "user", "assistant", "user")
            messages = [{"role": "system", "content": turn} for turn in before]
            messages += [{"role": role, "content": turn} for role, turn in zip(roles, turns, strict=False)]
            if rendered(*before, *turns) != parts.write(messages):
                return None
    return parts


def go_template(parts: Parts) -> str:
    """Write Ollama's template: the parts around `.System` and `.Messages`."""
    start = _literal(parts.start)
    if parts.system is not None:
        before, behind = map(_literal, parts.system)
        start = f"{{{{ if .System }}}}{before}{{{{ .System }}}}{behind}{{{{ else }}}}{start}{{{{ end }}}}"
    if parts.reply is None:  # the last question alone
        last = '{{ $question := "" }}{{ range .Messages }}{{ if eq .Role "user" }}{{ $question = .Content }}'
        last += "{{ end }}{{ end }}"
        return f"{last}{start}{{{{ $question }}}}{_literal(parts.prompt)}"
    turns = (
        '{{ range .Messages }}{{ if eq .Role "user" }}{{ if $replied }}' + _literal(parts.following) + "{{ end }}"
        '{{ .Content }}{{ $open = true }}{{ else if eq .Role "assistant" }}' + _literal(parts.reply) + "{{ .Content }}"
        "{{ $replied = true }}{{ $open = false }}{{ end }}{{ end }}"
    )
    prompt = f"{{{{ if $open }}}}{_literal(parts.prompt)}{{{{ end }}}}"
    return f"{{{{ $replied := false }}}}{{{{ $open := false }}}}{start}{turns}{prompt}"


def _literal(text: str) -> str:
    """Write text so that neither Go's templates nor the Modelfile read it as their own."""
    plain = "{{" not in text and "}}" not in text and '"' not in text and text == text.strip()
    return text if plain or not text else f"{{{{ {json.dumps(text, ensure_ascii=False)} }}}}"


def modelfile(template: str, stops: list[str], context: int, temperature: float, notes: list[str]) -> str:
    """Write a Modelfile for the weights beside it."""
    lines = [f"# {note}" for note in notes]
    lines += ["FROM .", f'TEMPLATE """{template}"""', *(f'PARAMETER stop "{stop}"' for stop in stops)]
    lines += [f"PARAMETER num_ctx {context}", f"PARAMETER temperature {temperature:g}", "PARAMETER repeat_penalty 1"]
    return "\n".join(lines) + "\n"


def export(config: ExportConfig) -> Path:
    """Write a folder for `ollama create`.

    Returns:
        The folder.

    Raises:
        UserErrors: The model is an adapter, or isn't there; Ollama can't convert it, or its template can't be
            translated.
    """
    name = config.model_name_or_path.rstrip("/")
    source = Path(name)
    if not source.is_dir():
        raise user_error("model_name_or_path", f"there is no folder {name}; name the output folder of a training")
    folder = Path(config.output_dir or f"{name}-ollama")
    refuse_in_place(str(folder), name)
    if (source / ADAPTER).is_file():
        merged = f"bmc merge --model_name_or_path {name} --output_dir {name}-merged"
        raise user_error("model_name_or_path", f"{name} is an adapter; merge it first: {merged}")
    check_model(name, "main", trust_remote_code=False)
    values = json.loads((source / "config.json").read_text(encoding="utf-8"))
    values["architectures"] = [_architecture(values, name)]
    tokenizer = load_tokenizer(config.tokenizer_name_or_path or name, "main", False, config.chat_template)
    parts = _parts(tokenizer)
    context = min(LONGEST, *(values[key] for key in ("max_position_embeddings", "sliding_window") if values.get(key)))
    if config.dry_run:
        return folder
    claim_output_dir(str(folder), run_fingerprint(config), config)
    _copy(source, folder, values)
    text = modelfile(go_template(parts), _stops(tokenizer, source), context, config.temperature, _notes(parts))
    (folder / "Modelfile").write_text(text, encoding="utf-8")
    return folder


def _architecture(values: dict[str, Any], name: str) -> str:
    (architecture, *_) = values.get("architectures") or ["nothing"]
    if architecture == AS_LLAMA:
        return "LlamaForCausalLM"
    if architecture not in CONVERTED:
        what = f"Ollama can't convert {architecture}; convert {name} to GGUF with llama.cpp, and write FROM model.gguf"
        raise user_error("model_name_or_path", what)
    return str(architecture)


def _parts(tokenizer: Any) -> Parts:
    """Read the parts of a tokenizer's chat template."""
    if not isinstance(tokenizer.chat_template, str):
        raise user_error("chat_template", "the model's tokenizer has none; name the one that it was trained with")
    if "strftime_now" in tokenizer.chat_template:
        raise user_error("chat_template", "writes today's date, which Ollama's templates can't; name one without it")

    def render(messages: list[dict[str, str]], prompt: bool) -> str:
        return str(tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=prompt))

    parts = read_parts(render)
    if parts is None:
        what = "can't be translated to Ollama's: it doesn't write the same text around each turn of a conversation"
        raise user_error("chat_template", f"{what}; name another one, or write a Modelfile by hand")
    return parts


def _stops(tokenizer: Any, source: Path) -> list[str]:
    """List the texts that end a response: the end of a turn, EOS, and those of the generation config."""
    file = source / "generation_config.json"
    given = json.loads(file.read_text(encoding="utf-8")).get("eos_token_id") if file.is_file() else None
    ids = [turn_end(tokenizer), tokenizer.eos_token_id, *(given if isinstance(given, list) else [given])]
    return list(dict.fromkeys(tokenizer.convert_ids_to_tokens(number) for number in ids if number is not None))


def _notes(parts: Parts) -> list[str]:
    notes = ["ollama create NAME -f Modelfile   # -q q4_K_M for 4 bits"]
    if parts.reply is None:
        notes.append(
            "Each question is answered alone: the chat template that the model was trained with takes no more."
        )
    if parts.system is None:
        notes.append("A system message has no effect: the chat template takes none.")
    return notes


def _copy(source: Path, folder: Path, values: dict[str, Any]) -> None:
    """Link the weights, or copy them to another disk; write the configs that Ollama reads.

    The template has BOS where the model was trained with it, so that Ollama must not put one before it.
    """
    for file in (file for pattern in COPIED for file in source.glob(pattern)):
        target = folder / file.name
        target.unlink(missing_ok=True)
        try:
            os.link(file.resolve(), target)
        except OSError:
            shutil.copyfile(file, target)
    tokenizer = json.loads((source / "tokenizer_config.json").read_text(encoding="utf-8"))
    for name, content in (("config.json", values), ("tokenizer_config.json", tokenizer | {"add_bos_token": False})):
        (folder / name).write_text(json.dumps(content, indent=2, ensure_ascii=False), encoding="utf-8")
