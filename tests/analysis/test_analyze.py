"""The whole stage on tiny trained models, against a plain forward pass."""

import csv
import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from made import MAX_LENGTH, VALIDATION, call

pytestmark = pytest.mark.slow
RUNS = ("dpo", "dpo_bc", "dpo_bmc")


@pytest.fixture(scope="module")
def out(setting: Path) -> Path:
    recipe = setting / "analyze.yaml"
    recipe.write_text(
        yaml.safe_dump({"setting": str(setting), "output_dir": str(setting / "analyze"), "batch_size": 4})
    )
    call("analyze", str(recipe))
    return setting / "analyze"


def lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def table(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


class Plain:
    """Log-probs of a response's tokens by transformers alone, in float64 and without batches."""

    def __init__(self, folder: Path, tokenizer: Any) -> None:
        from transformers import AutoModelForCausalLM

        self.model, self.tokenizer = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float64), tokenizer

    @torch.no_grad()
    def __call__(self, row: dict[str, Any], side: str) -> tuple[list[int], torch.Tensor]:
        """Ids of the response's tokens below max_length, and the log-probs of the whole vocabulary at each, (T, V)."""
        options = {"tokenize": True, "return_dict": True}
        prompt = self.tokenizer.apply_chat_template(row["prompt"], add_generation_prompt=True, **options)["input_ids"]
        ids = self.tokenizer.apply_chat_template(row["prompt"] + row[side], **options)["input_ids"][:MAX_LENGTH]
        assert ids[: len(prompt)] == prompt
        logits = self.model(input_ids=torch.tensor([ids])).logits[0, len(prompt) - 1 : -1]
        return ids[len(prompt) :], logits.log_softmax(dim=-1)


def of(ids: list[int], logps: torch.Tensor) -> list[float]:
    return logps[torch.arange(len(ids)), ids].tolist()


def pairs(setting: Path) -> dict[str, dict[str, Any]]:
    return {row["id"]: row for row in lines(setting / "bridge/train.jsonl")}


@pytest.mark.parametrize("run", RUNS)
def test_token_scores_are_those_of_a_plain_forward_pass(
    run: str, out: Path, setting: Path, model_dir: Path, tokenizer: Any
) -> None:
    policy, reference = Plain(setting / run, tokenizer), Plain(model_dir, tokenizer)
    rows, found = pairs(setting), lines(out / "tokens" / f"{run}.jsonl")
    assert len(found) == VALIDATION
    cut: set[bool] = set()
    for scored in found:
        row = rows[scored["id"]]
        assert scored["prompt"] == row["prompt"][0]["content"]
        for side in ("chosen", "rejected"):
            ours, (ids, logps), (_, ref) = scored[side], policy(row, side), reference(row, side)
            wanted = of(ids, logps)
            assert "".join(ours["tokens"]) == tokenizer.decode(ids)
            cut.add(row[side][0]["content"] not in "".join(ours["tokens"]))
            assert ours["rewards"] == pytest.approx(
                [0.2 * (a - b) for a, b in zip(wanted, of(ids, ref), strict=True)], abs=1e-4
            )
            assert ours["probabilities"] == pytest.approx([torch.tensor(x).exp().item() for x in wanted], abs=1e-4)
            assert len({len(ours[key]) for key in ("tokens", "rewards", "probabilities", "weights", "differs")}) == 1
    assert cut == {True, False}


def test_marks_and_weights(out: Path, setting: Path) -> None:
    """Where n + n % 7 is n, the loser says "not " more and nothing else. δ = 2 is below 1/π: the model knows little."""
    rows = {row["id"]: row for row in lines(out / "tokens/dpo_bmc.jsonl")}
    plain = {row["id"]: row for row in lines(out / "tokens/dpo.jsonl")}
    same = next(id for id in rows if int(id.removeprefix("sum-")) % 7 == 0)
    loser, winner = rows[same]["rejected"], rows[same]["chosen"]
    marked = "".join(token for token, differs in zip(loser["tokens"], loser["differs"], strict=True) if differs)
    assert sorted(marked) == sorted("not ")
    assert not any(winner["differs"])
    assert loser["weights"] == [3.0 if differs else 1.0 for differs in loser["differs"]]
    for row in plain.values():
        assert set(row["chosen"]["weights"] + row["rejected"]["weights"]) == {1.0}
    assert rows[same]["rejected"]["differs"] == plain[same]["rejected"]["differs"]


def test_an_accented_letter_is_whole_in_one_token(out: Path) -> None:
    tokens = lines(out / "tokens/dpo.jsonl")[0]["chosen"]["tokens"]
    assert tokens[tokens.index("à") - 1] == ""  # its first byte
    assert "\ufffd" not in "".join(tokens)


def test_margins_are_those_that_training_logged(out: Path, setting: Path) -> None:
    """Each run's last evaluation was on its own kind of these pairs."""
    found = {(row["run"], row["pairs"]): row for row in table(out / "figures/rewards.csv")}
    for run, kind in (("dpo", "y_w / y_l"), ("dpo_bc", "ỹ_w / y_l"), ("dpo_bmc", "ỹ_w / y_l")):
        logged = json.loads((setting / run / "metrics.json").read_text())
        assert float(found[run, kind]["margin"]) == pytest.approx(logged["eval_rewards/margins"], rel=1e-4)
        assert found[run, kind]["n"] == str(VALIDATION)


def test_divergence_is_exact(out: Path, setting: Path, model_dir: Path, tokenizer: Any) -> None:
    rows = pairs(setting)
    validation = [rows[row["id"]] for row in lines(out / "tokens/dpo.jsonl")]
    found = {
        (row["run"], row["chosen"], row["step"]): float(row["nats a token"])
        for row in table(out / "figures/figure9.csv")
        if row["kind"] == "saved models: exact KL"
    }
    assert ("DPO-BMC", "y_w", "2") in found  # the checkpoint before the last step
    assert len(found) == 2 * (len(RUNS) + 1)
    reference = Plain(model_dir, tokenizer)
    for run, method, folder, step in (
        ("dpo", "DPO", "", 3), ("dpo_bmc", "DPO-BMC", "", 3), ("dpo_bmc", "DPO-BMC", "checkpoint-2", 2),
    ):  # fmt: skip
        policy = Plain(setting / run / folder, tokenizer)
        for kind, side in (("y_w", "original_chosen"), ("ỹ_w", "chosen")):
            total, count = 0.0, 0
            for row in validation:
                (_, logps), (_, ref) = policy(row, side), reference(row, side)
                total += (logps.exp() * (logps - ref)).sum().item()
                count += len(logps)
            assert found[method, kind, str(step)] == pytest.approx(total / count, rel=1e-3)


def test_the_summary_names_what_is_there_and_what_is_not(out: Path, setting: Path) -> None:
    summary = json.loads((out / "analysis.json").read_text())
    assert [figure["name"] for figure in summary["figures"]] == ["figure2", "figure6", "rewards", "figure9", "table10"]
    for figure in summary["figures"]:
        assert figure["caption"]
        assert all((out / figure[kind]).is_file() for kind in ("svg", "png", "csv"))
    missing = {one.pop("name"): one for one in summary["missing"]}
    assert missing["dpo_mc"] == {"why": "not run", "command": "make tiny/sums/dpo_mc"}
    assert missing["figure5"]["command"] == "make tiny/sums/figure5"
    assert summary["pairs"]["n"] == VALIDATION
    assert (summary["runs"]["dpo_bmc"]["beta"], summary["runs"]["dpo_bmc"]["delta"]) == (0.2, 2.0)
    assert summary["runs"]["dpo"]["delta"] is None
    assert json.loads((out / "provenance.json").read_text())["recipe"]["setting"].endswith("sums")


def test_without_weights_the_curves_are_left(out: Path, setting: Path, tmp_path: Path, capsys: Any) -> None:
    for run in RUNS:
        shutil.copytree(setting / run, tmp_path / run, ignore=shutil.ignore_patterns("*.safetensors", "checkpoint-*"))
    (tmp_path / "analyze/tokens").mkdir(parents=True)
    (tmp_path / "analyze/tokens/dpo.jsonl").write_text("{}\n")  # of an earlier analysis
    call("analyze", f"--setting={tmp_path}", f"--output_dir={tmp_path / 'analyze'}")
    assert not (tmp_path / "analyze/tokens/dpo.jsonl").exists()
    printed = capsys.readouterr().out
    assert "dpo: its weights are gone; only its curves are shown; make" in printed
    assert "rewards: no run has its weights; make" in printed
    drawn = sorted(path.name for path in (tmp_path / "analyze/figures").glob("*.csv"))
    assert drawn == ["figure9.csv", "table10.csv"]
    assert {row["kind"] for row in table(tmp_path / "analyze/figures/figure9.csv")} == {"while training: k3"}


def test_a_run_with_an_adapter(setting: Path, tmp_path: Path) -> None:
    recipe = yaml.safe_load((setting / "dpo.yaml").read_text())
    recipe |= {"use_peft": True, "lora_r": 4, "learning_rate": 0.05, "output_dir": str(tmp_path / "dpo")}
    (tmp_path / "dpo.yaml").write_text(yaml.safe_dump(recipe))
    call("preference", str(tmp_path / "dpo.yaml"))
    call("analyze", f"--setting={tmp_path}", f"--output_dir={tmp_path / 'analyze'}", "--runs=[dpo]")
    logged = json.loads((tmp_path / "dpo/metrics.json").read_text())["eval_rewards/margins"]
    assert float(table(tmp_path / "analyze/figures/rewards.csv")[0]["margin"]) == pytest.approx(logged, rel=1e-4)
    assert abs(logged) > 0.1


def test_a_run_that_is_weighted_from_outside(setting: Path, out: Path, tmp_path: Path, capsys: Any) -> None:
    shutil.copytree(setting / "dpo", tmp_path / "dpo")
    recipe = json.loads((tmp_path / "dpo/recipe.json").read_text()) | {"token_weighting": "external"}
    (tmp_path / "dpo/recipe.json").write_text(json.dumps(recipe))
    with pytest.raises(SystemExit) as stop:
        call("analyze", f"--setting={tmp_path}", f"--output_dir={tmp_path / 'analyze'}")
    assert stop.value.code == 2
    assert "runs: dpo's λ are scores that the training pairs were given" in capsys.readouterr().err


def test_a_damaged_file_is_told_before_anything_is_written(setting: Path, tmp_path: Path, capsys: Any) -> None:
    shutil.copytree(setting / "dpo", tmp_path / "dpo")
    (tmp_path / "bridge").mkdir()
    (tmp_path / "bridge/stats.json").write_text('{"rows"')
    with pytest.raises(SystemExit) as stop:
        call("analyze", f"--setting={tmp_path}", f"--output_dir={tmp_path / 'analyze'}")
    assert stop.value.code == 2
    assert capsys.readouterr().err.endswith("bridge/stats.json: is not JSON; remove it and run its stage again\n")
    assert not (tmp_path / "analyze").exists()
