"""Supervised fine-tuning with the loss on the response only (TRL's SFTTrainer).

accelerate launch --config_file recipes/accelerate_configs/zero3.yaml scripts/sft.py recipes/llama2-7b/qa/sft.yaml
"""

import sys
from pathlib import Path

from bmc import card
from bmc.runtime import is_main_process, stage
from bmc.training import (
    SFT,
    assistant_only,
    describe_run,
    open_run,
    parse_training,
    rehearse,
    run,
    trainer_arguments,
)
from bmc.training_config import SFTConfig, TrainingArguments


def main() -> None:
    arguments, model_args, config = parse_training(sys.argv[1:], TrainingArguments, SFTConfig, __doc__)
    if arguments.dry_run:
        missing = rehearse(arguments, model_args, config, SFT)
        describe_run("supervised fine-tuning", arguments, model_args, config, missing)
        return
    from bmc.steady import SFTTrainer

    tokenizer, train, evaluation = open_run(arguments, model_args, config, SFT)
    config.assistant_only_loss = assistant_only(config, train)
    trainer = card.with_card(SFTTrainer)(
        args=config,
        train_dataset=train,
        eval_dataset=evaluation,
        processing_class=tokenizer,
        **trainer_arguments(model_args, config),
    )
    metrics = run(trainer, tokenizer)
    if is_main_process():
        card.write(Path(config.output_dir))
        print(f"trained on {metrics['rows']:,} rows in {metrics['seconds']:.0f} s: {config.output_dir}")


if __name__ == "__main__":
    stage(main)
