"""`bmc export MODEL --to ollama`: chat templates as Go's, and the folder that `ollama create` reads."""

import json
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import trl

from bmc.commands import export as export_command
from bmc.config import ExportConfig
from bmc.errors import UserErrors
from bmc.export import Parts, export, go_template, read_parts

ROOT = Path(__file__).parents[1]
CHATML = (
    "{% for m in messages %}{{ '<|im_start|>' + m['role'] + '\n' + m['content'] + '<|im_end|>' + '\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
SMOLLM2 = (
    "{% if messages[0]['role'] != 'system' %}{{ '<|im_start|>system\nYou help.<|im_end|>\n' }}{% endif %}" + CHATML
)
ZEPHYR = (
    "{% for m in messages %}\n{% if m['role'] == 'user' %}\n{{ '<|user|>\n' + m['content'] + eos_token }}\n"
    "{% elif m['role'] == 'system' %}\n{{ '<|system|>\n' + m['content'] + eos_token }}\n"
    "{% elif m['role'] == 'assistant' %}\n{{ '<|assistant|>\n'  + m['content'] + eos_token }}\n{% endif %}\n"
    "{% if loop.last and add_generation_prompt %}\n{{ '<|assistant|>' }}\n{% endif %}\n{% endfor %}"
)
LLAMA2_CHAT = (
    "{% if messages[0]['role'] == 'system' %}{% set rest = messages[1:] %}{% set told = messages[0]['content'] %}"
    "{% else %}{% set rest = messages %}{% set told = false %}{% endif %}{% for m in rest %}"
    "{% if loop.index0 == 0 and told != false %}{% set text = '<<SYS>>\\n' + told + '\\n<</SYS>>\\n\\n'"
    " + m['content'] %}"
    "{% else %}{% set text = m['content'] %}{% endif %}{% if m['role'] == 'user' %}"
    "{{ bos_token + '[INST] ' + text.strip() + ' [/INST]' }}{% elif m['role'] == 'assistant' %}"
    "{{ ' '  + text.strip() + ' ' + eos_token }}{% endif %}{% endfor %}"
)
INSTRUCTION = (ROOT / "recipes/chat_templates/instruction.jinja").read_text()
COUNTS = "{% for m in messages %}{{ loop.index }}{{ m.content }}{% endfor %}"
CONVERSATIONS = [
    [("user", 'Is {{ .x }} "a"?')],
    [("system", "Be kind."), ("user", "Hi?")],
    [("user", "A"), ("assistant", "b"), ("user", "C")],
    [("system", "S"), ("user", "A"), ("assistant", "b"), ("user", "C"), ("assistant", "d"), ("user", "E?")],
]


def renders(template: str) -> Any:
    from transformers.utils.chat_template_utils import _compile_jinja_template

    compiled = _compile_jinja_template(template)
    return lambda messages, prompt: compiled.render(
        messages=messages, add_generation_prompt=prompt, bos_token="<s>", eos_token="</s>", tools=None, documents=None
    )


def test_what_a_template_writes_around_turns(subtests: pytest.Subtests) -> None:
    for template, parts in [
        (
            CHATML,
            Parts(
                "<|im_start|>user\n",
                ("<|im_start|>system\n", "<|im_end|>\n<|im_start|>user\n"),
                "<|im_end|>\n<|im_start|>assistant\n",
                "<|im_end|>\n<|im_start|>assistant\n",
                "<|im_end|>\n<|im_start|>user\n",
            ),
        ),
        (  # the default system turn stands where there is none
            SMOLLM2,
            Parts(
                "<|im_start|>system\nYou help.<|im_end|>\n<|im_start|>user\n",
                ("<|im_start|>system\n", "<|im_end|>\n<|im_start|>user\n"),
                "<|im_end|>\n<|im_start|>assistant\n",
                "<|im_end|>\n<|im_start|>assistant\n",
                "<|im_end|>\n<|im_start|>user\n",
            ),
        ),
        (
            ZEPHYR,
            Parts(
                "<|user|>\n",
                ("<|system|>\n", "</s>\n<|user|>\n"),
                "</s>\n<|assistant|>\n",
                "</s>\n<|assistant|>\n",
                "</s>\n<|user|>\n",
            ),
        ),
        (  # a system turn goes into the first question
            LLAMA2_CHAT,
            Parts("<s>[INST] ", ("<s>[INST] <<SYS>>\n", "\n<</SYS>>\n\n"), " [/INST]", " [/INST] ", " </s><s>[INST] "),
        ),
        (INSTRUCTION, Parts("<s>### Instruction:\n", None, "\n\n### Response:\n")),
        (COUNTS, None),
        ("{{ messages[-1].content }}", Parts("", None, "")),
        ("{{ messages | length }}", None),
    ]:
        with subtests.test(template=template):
            assert read_parts(renders(template)) == parts


def test_the_templates_text() -> None:
    """By hand: what Go's template language would read as its own, or a Modelfile strip, is written as Go's strings."""
    alone = Parts("Q: ", None, "\nA:")
    assert go_template(alone) == (
        '{{ $question := "" }}{{ range .Messages }}{{ if eq .Role "user" }}{{ $question = .Content }}{{ end }}{{ end }}'
        '{{ "Q: " }}{{ $question }}{{ "\\nA:" }}'
    )
    assert '{{ "{{x}}\\"" }}' in go_template(Parts('{{x}}"', None, ""))
    assert '"""' not in go_template(Parts('"""', None, '"""'))


@pytest.mark.slow
@pytest.mark.skipif(not shutil.which("go"), reason="renders with Go's own text/template")
def test_go_renders_what_jinja_renders(tmp_path: Path) -> None:
    """The templates that we ship, four families, and all that TRL ships and that can be translated."""
    files = [*ROOT.glob("recipes/chat_templates/*.jinja"), *Path(trl.__file__).parent.glob("chat_templates/*.jinja")]
    texts = [CHATML, SMOLLM2, ZEPHYR, LLAMA2_CHAT, *(file.read_text() for file in files)]
    cases = []
    for text in texts:
        render = renders(text)
        parts = read_parts(render)
        for turns in CONVERSATIONS if parts else []:
            if (parts.reply is None and len(turns) > 2) or (parts.system is None and turns[0][0] == "system"):
                continue
            messages = [{"Role": role, "Content": content} for role, content in turns]
            lower = [{key.lower(): value for key, value in message.items()} for message in messages]
            cases.append(
                {
                    "T": go_template(parts),
                    "M": messages,
                    "S": lower[0]["content"] if parts.system and lower[0]["role"] == "system" else "",
                    "W": render(lower, True),
                }
            )
    assert len(cases) > 200
    (tmp_path / "cases.json").write_text(json.dumps(cases))
    (tmp_path / "main.go").write_text(GO)
    ran = subprocess.run(["go", "run", "main.go"], cwd=tmp_path, capture_output=True, text=True, timeout=300)
    assert ran.stdout.split() == [str(len(cases))], ran.stdout + ran.stderr


GO = """package main
import ("bytes"; "encoding/json"; "fmt"; "os"; "text/template")
type M struct{ Role, Content string }
type C struct{ T, S, W string; M []*M }
func main() {
  text, _ := os.ReadFile("cases.json")
  var cases []C
  if err := json.Unmarshal(text, &cases); err != nil { panic(err) }
  right := 0
  for _, c := range cases {
    var out bytes.Buffer
    t := template.Must(template.New("").Parse(c.T))
    if err := t.Execute(&out, map[string]any{"System": c.S, "Messages": c.M}); err != nil { panic(err) }
    if out.String() == c.W { right++ } else { fmt.Printf("%q %q\\n", out.String(), c.W) }
  }
  fmt.Println(right)
}
"""


def test_the_folder_for_ollama(model_dir: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = tmp_path / "tiny-ollama"
    export_command([str(model_dir), "--to", "ollama", "--output_dir", str(folder)])
    assert f"exported {model_dir} to {folder}" in capsys.readouterr().out
    assert (folder / "model.safetensors").samefile(model_dir / "model.safetensors")  # linked, not copied
    assert (folder / "tokenizer.json").read_bytes() == (model_dir / "tokenizer.json").read_bytes()
    assert json.loads((folder / "config.json").read_text())["architectures"] == ["LlamaForCausalLM"]
    # the template begins with <s>, so that Ollama must not put another one before it
    assert json.loads((folder / "tokenizer_config.json").read_text())["add_bos_token"] is False
    lines = (folder / "Modelfile").read_text().splitlines()
    assert "FROM ." in lines
    assert "".join(lines).count("<s>") == 2  # where there is a system turn, and where there is none
    assert 'PARAMETER stop "</s>"' in lines
    assert {"PARAMETER num_ctx 512", "PARAMETER temperature 0"} <= set(lines)
    export(ExportConfig(model_name_or_path=str(model_dir), to="ollama", output_dir=str(folder)))  # again


def test_a_mistral_is_a_llama_within_its_window(model_dir: Path, tmp_path: Path) -> None:
    source, folder = tmp_path / "m", tmp_path / "out"
    shutil.copytree(model_dir, source)
    values = json.loads((source / "config.json").read_text())
    values |= {"architectures": ["MistralForCausalLM"], "model_type": "mistral", "sliding_window": 128}
    (source / "config.json").write_text(json.dumps(values))
    template = str(ROOT / "recipes/chat_templates/instruction.jinja")
    export(ExportConfig(model_name_or_path=str(source), to="ollama", output_dir=str(folder), chat_template=template))
    assert json.loads((folder / "config.json").read_text())["architectures"] == ["LlamaForCausalLM"]
    text = (folder / "Modelfile").read_text()
    assert "PARAMETER num_ctx 128" in text
    assert "# Each question is answered alone" in text
    assert "# A system message has no effect" in text


def test_what_cannot_be_exported(model_dir: Path, tmp_path: Path) -> None:
    adapter, other = tmp_path / "adapter", tmp_path / "other"
    adapter.mkdir()
    (adapter / "adapter_config.json").write_text("{}")
    shutil.copytree(model_dir, other)
    values = json.loads((other / "config.json").read_text())
    (other / "config.json").write_text(json.dumps(values | {"architectures": ["OPTForCausalLM"]}))
    for given, what in [
        (
            {"model_name_or_path": "no/folder"},
            "model_name_or_path: there is no folder no/folder; name the output folder",
        ),
        (
            {"model_name_or_path": str(adapter)},
            f"{adapter} is an adapter; merge it first: bmc merge --model_name_or_path {adapter} --output_dir",
        ),
        ({"model_name_or_path": str(other)}, "Ollama can't convert OPTForCausalLM; convert .* with llama.cpp"),
        ({"chat_template": COUNTS}, "chat_template: can't be translated to Ollama's: it doesn't write the same text"),
        ({"chat_template": "{{ strftime_now('%d') }}"}, "chat_template: writes today's date"),
    ]:
        values = {"model_name_or_path": str(model_dir), "to": "ollama", "output_dir": str(tmp_path / "out")} | given
        with pytest.raises(UserErrors, match=what):
            export(ExportConfig(**values))
        assert not (tmp_path / "out").exists()
    with pytest.raises(UserErrors, match="is the folder of the model that is read"):
        export(ExportConfig(model_name_or_path=str(other), to="ollama", output_dir=f"{other}/../other"))
    assert (other / "model.safetensors").is_file()
    config = ExportConfig(model_name_or_path=str(model_dir), to="ollama", dry_run=True)
    assert str(export(config)) == f"{model_dir}-ollama"
    assert not Path(f"{model_dir}-ollama").exists()
    with pytest.raises(UserErrors, match=r"to: .*ollama"):
        export_command([str(model_dir), "--to", "gguf"])
