"""Recipes of huggingface/alignment-handbook as facts: their keys and values (at main, and before `dataset_mixture`)."""


def block(keys: str) -> str:
    """Keys that are written side by side, one a line."""
    return "".join(line.strip() + "\n" for line in keys.replace("\n", " ").split(";"))


EVERYWHERE = """
bf16: true; do_eval: true; gradient_checkpointing: true; gradient_checkpointing_kwargs: {use_reentrant: False};
log_level: info; lr_scheduler_type: cosine; push_to_hub: true; seed: 42; per_device_eval_batch_size: 8
"""
CHATML = (
    "\"{% for message in messages %}{{'<|im_start|>' + message['role'] + '\\n' + message['content'] + '<|im_end|>' + "
    "'\\n'}}{% endfor %}\""
)
LORA = """
use_peft: true; load_in_4bit: true; lora_r: 16; lora_alpha: 16; lora_dropout: 0.05;
lora_target_modules: [q_proj, k_proj, v_proj, o_proj, gate_proj, up_proj, down_proj]
"""

ZEPHYR_SFT = block(f"""
model_name_or_path: mistralai/Mistral-7B-v0.1; model_revision: main; torch_dtype: bfloat16;
attn_implementation: flash_attention_2; chat_template: {CHATML};
dataset_mixture: {{datasets: [{{id: HuggingFaceH4/ultrachat_200k, config: default, split: train_sft,
    columns: [messages], weight: 1.0}}, {{id: HuggingFaceH4/ultrachat_200k, config: default, split: test_sft,
    columns: [messages], weight: 1.0}}], test_split_size: 1000, seed: 0}};
dataset_num_proc: 12; eval_strategy: epoch; gradient_accumulation_steps: 1; hub_model_id: zephyr-7b-sft-full;
hub_strategy: every_save; learning_rate: 2.0e-05; logging_steps: 5; logging_strategy: steps; max_seq_length: 2048;
max_steps: -1; num_train_epochs: 1; output_dir: data/zephyr-7b-sft-full; overwrite_output_dir: true;
per_device_train_batch_size: 16; remove_unused_columns: true; report_to: [wandb]; save_strategy: "steps";
save_steps: 100; save_total_limit: 1; warmup_ratio: 0.1; {EVERYWHERE}
""")

SMOLLM3_SFT = block(f"""
model_name_or_path: HuggingFaceTB/SmolLM3-3B-checkpoints; model_revision: it-mid-training; torch_dtype: bfloat16;
attn_implementation: flash_attention_2; trust_remote_code: true; chat_template: {CHATML};
dataset_mixture: {{datasets: [{{id: HuggingFaceTB/smoltalk2, config: SFT, split: OpenThoughts3_1.2M_think,
    columns: [messages, chat_template_kwargs], weight: 0.02}}, {{id: HuggingFaceTB/smoltalk2, config: SFT,
    split: s1k_1.1_think, columns: [messages], weight: 1}}], seed: 0}};
dataset_num_proc: 12; eos_token: <|im_end|>; assistant_only_loss: true; bf16: true; ddp_timeout: 18000;
do_eval: false; eval_strategy: 'no'; gradient_accumulation_steps: 2; gradient_checkpointing: true;
gradient_checkpointing_kwargs: {{use_reentrant: true}}; output_dir: data/SmolLM3-SFT; hub_strategy: every_save;
learning_rate: 2.0e-05; log_level: info; logging_steps: 1; logging_strategy: steps;
lr_scheduler_type: cosine_with_min_lr; lr_scheduler_kwargs: {{min_lr_rate: 0.1}}; packing: true;
packing_strategy: ffd; max_grad_norm: 0.2; max_length: 65536; max_steps: -1; num_train_epochs: 5;
overwrite_output_dir: true; per_device_train_batch_size: 1; push_to_hub: true; report_to: [wandb];
save_strategy: steps; save_steps: 0.05; save_total_limit: 1; seed: 42; use_liger_kernel: true; warmup_ratio: 0.03;
run_name: smollm3-sft-training; average_tokens_across_devices: true
""")

SMOLLM2_SFT = block(f"""
model_name_or_path: HuggingFaceTB/SmolLM2-1.7B; torch_dtype: bfloat16; chat_template: {CHATML};
dataset_name: HuggingFaceTB/smoltalk; dataset_config: all; dataset_train_split: train; dataset_test_split: test;
dataset_num_proc: 24; eval_strategy: epoch; learning_rate: 3.0e-04; max_length: 8192; num_train_epochs: 2;
output_dir: data/smollm2-1.7B-sft; overwrite_output_dir: true; per_device_train_batch_size: 4; save_strategy: "no";
warmup_ratio: 0.1; {EVERYWHERE}
""")

GEMMA_SFT = block(f"""
model_name_or_path: google/gemma-7b; tokenizer_name_or_path: philschmid/gemma-tokenizer-chatml;
torch_dtype: bfloat16; use_flash_attention_2: true; chat_template: {CHATML};
dataset_mixer: {{HuggingFaceH4/deita-10k-v0-sft: 1.0}}; dataset_splits: [train_sft, test_sft];
preprocessing_num_workers: 12; dataset_kwargs: {{add_special_tokens: false, append_concat_token: false}};
evaluation_strategy: "epoch"; learning_rate: 2.0e-05; max_seq_length: 2048; num_train_epochs: 3;
output_dir: data/zephyr-7b-gemma-sft; overwrite_output_dir: true; per_device_train_batch_size: 4;
report_to: [tensorboard, wandb]; warmup_ratio: 0.1; {EVERYWHERE}
""")

GPT2_CPT = block(f"""
model_name_or_path: gpt2; torch_dtype: bfloat16; dataset_mixer: {{yhavinga/mc4_nl_cleaned: 1.0}};
dataset_splits: [train]; dataset_configs: [tiny]; preprocessing_num_workers: 12; eval_strategy: "no";
learning_rate: 2.0e-04; max_seq_length: 1024; output_dir: data/gpt2-cpt-dutch; {EVERYWHERE}
""")

ZEPHYR_DPO = block(f"""
model_name_or_path: alignment-handbook/zephyr-7b-sft-full; torch_dtype: null;
dataset_mixture: {{datasets: [{{id: HuggingFaceH4/ultrafeedback_binarized, config: default, split: train_prefs,
    columns: [chosen, rejected], weight: 1.0}}, {{id: HuggingFaceH4/ultrafeedback_binarized, config: default,
    split: test_prefs, columns: [chosen, rejected], weight: 1.0}}], test_split_size: 2000, seed: 0}};
dataset_num_proc: 12; beta: 0.01; eval_strategy: steps; eval_steps: 100; gradient_accumulation_steps: 2;
hub_model_id: zephyr-7b-dpo-full; learning_rate: 5.0e-7; logging_steps: 10; max_length: 1024;
max_prompt_length: 512; num_train_epochs: 1; optim: adamw_torch; output_dir: data/zephyr-7b-dpo-full;
per_device_train_batch_size: 8; save_strategy: "steps"; save_steps: 100; save_total_limit: 1; warmup_ratio: 0.1;
{EVERYWHERE}
""")

ZEPHYR_DPO_QLORA = block(f"""
model_name_or_path: alignment-handbook/zephyr-7b-sft-qlora; torch_dtype: float16; {LORA};
dataset_mixer: {{HuggingFaceH4/ultrafeedback_binarized: 1.0}}; dataset_splits: [train_prefs, test_prefs];
preprocessing_num_workers: 12; beta: 0.01; evaluation_strategy: steps; eval_steps: 100; learning_rate: 5.0e-6;
max_length: 1024; max_prompt_length: 512; optim: paged_adamw_32bit; output_dir: data/zephyr-7b-dpo-qlora;
per_device_train_batch_size: 4; save_total_limit: null; warmup_ratio: 0.1; {EVERYWHERE}
""")

STARCHAT_DPO = block(f"""
model_name_or_path: HuggingFaceH4/starchat2-15b-sft-v0.1; torch_dtype: bfloat16;
dataset_mixer: {{HuggingFaceH4/ultrafeedback_binarized: 1.0, HuggingFaceH4/orca_dpo_pairs: 0.5}};
dataset_splits: [train_prefs, test_prefs]; preprocessing_num_workers: 12; beta: 0.05; eval_strategy: steps;
eval_steps: 100; learning_rate: 5.0e-7; max_length: 1024; max_prompt_length: 512; num_train_epochs: 2;
optim: adamw_torch; output_dir: data/starchat2-15b-dpo-v0.1; report_to: [tensorboard, wandb]; save_strategy: "no";
warmup_ratio: 0.1; {EVERYWHERE}
""")

SCAN_DPO = block(f"""
model_name_or_path: alignment-handbook/zephyr-7b-sft-full; torch_dtype: null;
dataset_mixer: {{HuggingFaceH4/ultrafeedback_binarized: 1.0}}; dataset_splits: [train_prefs, test_prefs];
preprocessing_num_workers: 12; beta: 0.01; loss_type: sigmoid; evaluation_strategy: steps; eval_steps: 100;
hub_model_id: zephyr-7b-align-scan; hub_model_revision: dpo-beta-0.01; learning_rate: 5.0e-7;
max_prompt_length: 512; optim: adamw_torch; output_dir: data/zephyr-7b-align-scan-dpo-beta-0.01;
push_to_hub_revision: true; warmup_ratio: 0.1; {EVERYWHERE}
""")

SMOLLM3_APO = block(f"""
model_name_or_path: HuggingFaceTB/SmolLM3-3B-checkpoints; model_revision: it-SFT; torch_dtype: bfloat16;
attn_implementation: flash_attention_2; trust_remote_code: true;
dataset_mixture: {{datasets: [{{id: HuggingFaceTB/smoltalk2, config: Preference,
    split: llama_3.1_tulu_3_8b_preference_mixture_no_think, columns: [chosen, rejected, prompt,
    chat_template_kwargs], weight: 0.5}}, {{id: HuggingFaceTB/smoltalk2, config: Preference,
    split: tulu_3_8b_pref_mix_Qwen3_32B_Qwen3_0.6B_think, columns: [chosen, rejected, prompt,
    chat_template_kwargs], weight: 0.25}}]}};
dataset_num_proc: 12;
{EVERYWHERE.replace("cosine", "cosine_with_min_lr").replace("do_eval: true", "do_eval: false")};
eval_strategy: 'no'; gradient_accumulation_steps: 2; output_dir: data/SmolLM3-DPO; run_name: SmolLM3-DPO;
hub_strategy: every_save; learning_rate: 1.0e-06; logging_steps: 1; logging_strategy: steps;
lr_scheduler_kwargs: {{min_lr_rate: 0.1}}; max_grad_norm: 0.2; beta: 0.05; loss_type: apo_zero; max_length: 24576;
num_train_epochs: 1; overwrite_output_dir: true; per_device_train_batch_size: 1; padding_free: true;
report_to: [wandb]; save_strategy: steps; save_steps: 0.5; save_total_limit: 1; use_liger_kernel: true;
warmup_ratio: 0.1
""")

CAPYBARA_ORPO = block(f"""
model_name_or_path: mistralai/Mistral-7B-v0.1; torch_dtype: bfloat16; use_flash_attention_2: true;
chat_template: {CHATML}; dataset_mixer: {{argilla/distilabel-capybara-dpo-7k-binarized: 1.0}};
dataset_splits: [train]; preprocessing_num_workers: 12; bf16: true; beta: 0.05; learning_rate: 5.0e-6;
lr_scheduler_type: inverse_sqrt; max_length: 2048; max_prompt_length: 1792; num_train_epochs: 3;
optim: adamw_bnb_8bit; output_dir: data/alignment-handbook; per_device_train_batch_size: 8; push_to_hub: true;
report_to: [tensorboard, wandb]; save_strategy: "no"; warmup_steps: 100
""")

# of the SimPO and BMC repositories: what all of their preference recipes have
RELEASED = block("""
torch_dtype: null; attn_implementation: flash_attention_2; dataset_splits: [train, test];
preprocessing_num_workers: 12; bf16: true; do_eval: true; evaluation_strategy: steps; eval_steps: 400;
gradient_accumulation_steps: 16; gradient_checkpointing: true;
gradient_checkpointing_kwargs: {use_reentrant: False}; log_level: info; lr_scheduler_type: cosine; max_length: 2048;
max_prompt_length: 1800; num_train_epochs: 1; optim: adamw_torch; per_device_train_batch_size: 2;
per_device_eval_batch_size: 4; push_to_hub: false; save_strategy: "steps"; save_steps: 1000000;
save_total_limit: 20; seed: 42; warmup_ratio: 0.1
""")
ULTRAFEEDBACK_BMC = "dataset_mixer: {training_data/ultrafeedback_dpo_bmc: 1.0}\n"
SIMPO = {  # (β, γ/β, learning rate)
    "gemma-2-9b-it": (10, 0.5, 8e-7),
    "llama-3-8b-base": (2.0, 0.5, 6e-7),
    "llama-3-8b-instruct": (2.5, 0.55, 1e-6),
    "llama-3-8b-instruct-v2": (10, 0.3, 1e-6),
    "mistral-7b-base": (2.0, 0.8, 3e-7),
    "mistral-7b-instruct": (2.5, 0.1, 5e-7),
}
BMC = {  # (loss_type if it is there, β, δ)
    "llama-3-8b-base": ("sigmoid", 0.01, 1.5),
    "mistral-7b-base": (None, 0.01, 2.0),
    "llama-2-7b-base-math": ("sigmoid", 0.05, 2.5),
    "llama-2-7b-base-qa": ("sigmoid", 0.05, 3.0),
}
