"""Preference training: DPO-BMC, DPO and the rest (BMCTrainer).

    accelerate launch --config_file recipes/accelerate_configs/zero3.yaml \\
        scripts/preference.py recipes/llama2-7b/qa/dpo_bmc.yaml
    python scripts/preference.py recipes/llama2-7b/qa/dpo.yaml --sweep --launcher "accelerate launch …"
    python scripts/preference.py recipes/llama2-7b/qa/dpo.yaml --seeds 1,2,3 --launcher "accelerate launch …"
"""

import sys
from pathlib import Path

from bmc import card
from bmc.preference.losses import hyperparameters
from bmc.runtime import is_main_process, stage
from bmc.training import describe_run, open_run, parse_training, rehearse, run, trainer_arguments
from bmc.training_config import BMCConfig, PreferenceArguments
from bmc.trials.seeds import seeds
from bmc.trials.sweep import describe_sweep, sweep

COLUMNS = ("prompt", "chosen", "rejected")


def main() -> None:
    arguments, model_args, config = parse_training(sys.argv[1:], PreferenceArguments, BMCConfig, __doc__)
    if arguments.dry_run:
        names = config.loss_type if isinstance(config.loss_type, list) else [config.loss_type]
        weights = {
            "none": "λ = 1",
            "bmc": f"λ = 1 + min(1/π, {config.bmc_delta:g}) on differing tokens",
            "external": "λ from the columns chosen_weights and rejected_weights",
        }
        own = {key: getattr(config, key) for name in names for key in hyperparameters(name)}
        facts = {"objective": " + ".join(names), **own, "weights": weights[config.token_weighting]}
        if arguments.sweep:
            facts["sweep"] = describe_sweep(sys.argv[1:], arguments, config)
        facts |= rehearse(arguments, model_args, config, COLUMNS, arguments.chosen_column)
        describe_run("preference training", arguments, model_args, config, facts)
        return
    if arguments.sweep or arguments.seeds is not None:
        print((sweep if arguments.sweep else seeds)(sys.argv[1:], arguments, config))
        return
    from bmc.preference.trainer import BMCTrainer

    tokenizer, train, evaluation = open_run(arguments, model_args, config, COLUMNS, arguments.chosen_column)
    trainer = card.with_card(BMCTrainer)(
        args=config,
        train_dataset=train,
        eval_dataset=evaluation,
        processing_class=tokenizer,
        **trainer_arguments(model_args, config),
    )
    metrics = run(trainer, tokenizer)
    if is_main_process():
        card.write(Path(config.output_dir))
        print(f"trained on {metrics['rows']:,} pairs in {metrics['seconds']:.0f} s: {config.output_dir}")


if __name__ == "__main__":
    stage(main)
