"""A row of each data set in its own columns, as its card shows them, and the row that we make of it."""

from typing import Any

STEPS = "Let's think step by step.\n"


def closed(source: str, task: str, prompt: str, completion: str, answer: str) -> dict[str, Any]:
    return {
        "source": source, "task": task, "prompt": [{"role": "user", "content": prompt}],
        "completion": [{"role": "assistant", "content": completion}], "answer": answer
    }  # fmt: skip


ALLENAI = {"choices": {"text": ["sand", "local weather", "forests"], "label": ["A", "B", "C"]}, "answerKey": "B"}
OPTIONS = "Options:\nsand\nlocal weather\nforests"
USER = {"role": "user", "content": "Hi?"}
YES, NO = {"role": "assistant", "content": "Yes."}, {"role": "assistant", "content": "No."}

HUB = {
    "ecqa": (
        {
            "q_no": "1", "q_concept": "candle", "q_text": "Where is a candle romantic?", "q_op1": "roses",
            "q_op2": "synagogue", "q_op3": "bedroom", "q_op4": "cake", "q_op5": "shop", "q_ans": "bedroom",
            "taskA_pos": "One sleeps in a bedroom.\nCandles can be lit there.", "taskA_neg": "A cake is no place.",
            "taskB": "One sleeps in a bedroom and not in a cake."
        },
        closed(
            "ecqa", "qa", "Where is a candle romantic?\nOptions:\nroses\nsynagogue\nbedroom\ncake\nshop",
            f"{STEPS}One sleeps in a bedroom.\nCandles can be lit there.\nThe answer is bedroom", "bedroom"
        )
    ),
    "qasc": (
        {"id": "x", "question": "What is climate?", **ALLENAI, "fact1": "F1.", "fact2": "F2.", "combinedfact": "C."},
        closed(
            "qasc", "qa", f"What is climate?\n{OPTIONS}", f"{STEPS}F1.\nF2.\nC.\nThe answer is local weather",
            "local weather"
        )
    ),
    "openbookqa": (
        {"id": "7-980", "question_stem": "Climate is", **ALLENAI},
        closed("openbookqa", "qa", f"Climate is\n{OPTIONS}", f"{STEPS}The answer is local weather", "local weather")
    ),
    "strategyqa": (
        {
            "qid": "x", "term": "Llama", "question": "Do llamas fly?", "answer": False,
            "facts": "Llamas have no wings."
        },
        closed(
            "strategyqa", "qa", "Do llamas fly?\nOptions:\nyes\nno",
            f"{STEPS}Llamas have no wings.\nThe answer is no", "no"
        )
    ),
    "arc_easy": (
        {"id": "MCAS_2012_8_1", "question": "What is rain?", **ALLENAI},
        closed("arc_easy", "qa", f"What is rain?\n{OPTIONS}", f"{STEPS}The answer is local weather", "local weather")
    ),
    "arc_challenge": (
        {
            "id": "NYSEDREGENTS_2014_8_7", "question": "What is rain?",
            "choices": {"text": ["sand", "water", "wind", "salt"], "label": ["1", "2", "3", "4"]}, "answerKey": "2"
        },
        closed(
            "arc_challenge", "qa", "What is rain?\nOptions:\nsand\nwater\nwind\nsalt", f"{STEPS}The answer is water",
            "water"
        )
    ),
    "metamathqa": (
        {"type": "GSM_AnsAug", "query": "How many?", "response": "10 * 11 = 110.\n#### 110\nThe answer is: 110"},
        closed("metamathqa", "math", "How many?", f"{STEPS}10 * 11 = 110.\nThe answer is 110", "110")
    ),
    "gsm8k": (
        {"question": "How many eggs?", "answer": "She sells 1000+300=<<1000+300=1300>>1,300 eggs.\n#### 1,300"},
        closed(
            "gsm8k", "math", "How many eggs?", f"{STEPS}She sells 1000+300=1,300 eggs.\nThe answer is 1300", "1300"
        )
    ),
    "math": (
        {"problem": "Simplify.", "solution": r"It is $\boxed{\frac{1}{2}}$.", "level": "Level 2", "type": "Algebra"},
        closed(
            "math", "math", "Simplify.",
            f"{STEPS}It is $\\boxed{{\\frac{{1}}{{2}}}}$.\nThe answer is \\frac{{1}}{{2}}", r"\frac{1}{2}"
        )
    ),
    "mawps": (
        {"id": "m", "question": "How many?", "result": "1_250", "result_float": 1250.0, "expression": "1_000 + 250"},
        closed("mawps", "math", "How many?", f"{STEPS}The answer is 1250", "1250")
    ),
    "tabmwp": (
        {
            "question": "Who has more?", "choices": ["Braden", "Camilla"], "answer": "Braden", "table_title": "Coins",
            "table": "Name | Coins\nBraden | 76\nCamilla | 7", "solution": "76 is more than 7."
        },
        closed(
            "tabmwp", "math",
            "Coins\nName | Coins\nBraden | 76\nCamilla | 7\n\nWho has more?\nOptions:\nBraden\nCamilla",
            f"{STEPS}76 is more than 7.\nThe answer is Braden", "Braden"
        )
    ),
    "math_500": (
        {
            "problem": "What is $2 + 3$?", "solution": "It is $\\boxed{5}$.", "answer": "5", "subject": "Prealgebra",
            "level": 1, "unique_id": "test/prealgebra/1.json"
        }, closed("math_500", "math", "What is $2 + 3$?", f"{STEPS}It is $\\boxed{{5}}$.\nThe answer is 5", "5")
    ),
    "svamp": (
        {
            "ID": "chal-1", "Body": "Each pack of disks costs 76 dollars. There is a discount of 25 dollars on each.",
            "Question": "How much is a pack?", "Equation": "( 76.0 - 25.0 )", "Answer": "51.0", "Type": "Subtraction"
        },
        closed(
            "svamp", "math",
            "Each pack of disks costs 76 dollars. There is a discount of 25 dollars on each. How much is a pack?",
            f"{STEPS}The answer is 51", "51"
        )
    ),
    "asdiv": (
        {
            "body": "Seven apples and two pears are in the basket.", "question": "How many fruits are in the basket?",
            "solution_type": "Addition", "answer": "9 (fruits)", "formula": "7+2=9"
        },
        closed(
            "asdiv", "math", "Seven apples and two pears are in the basket. How many fruits are in the basket?",
            f"{STEPS}The answer is 9", "9"
        )
    ),
    "ultrachat_200k": (
        {"prompt": "Hi?", "prompt_id": "p", "messages": [{**USER, "weight": 1}, YES]},
        {"source": "ultrachat_200k", "task": "chat", "messages": [USER, YES]}
    ),
    "ultrafeedback": (
        {
            "prompt": "Hi?", "prompt_id": "p", "chosen": [{**USER, "weight": 1}, YES], "rejected": [USER, NO],
            "messages": [USER, YES], "score_chosen": 8.0, "score_rejected": 2.0
        }, {"source": "ultrafeedback", "task": "chat", "prompt": [USER], "chosen": [YES], "rejected": [NO]}
    ),
    "alpaca_eval": (
        {"dataset": "helpful_base", "instruction": "Hi?", "output": "Yes.", "generator": "gpt4_turbo"},
        {"source": "alpaca_eval", "task": "chat", "prompt": [USER], "reference": "Yes.", "dataset": "helpful_base"}
    ),
    "arena_hard": (
        {"question_id": "328c", "category": "v0.1", "cluster": "ABC", "turns": [{"content": "Hi?"}]},
        {"source": "arena_hard", "task": "chat", "prompt": [USER], "question_id": "328c"}
    ),
    "clair": (
        {"prompt": "Hi?", "chosen": [USER, YES], "rejected": [USER, NO], "rational": "1. Agree."},
        {
            "source": "clair", "task": "chat", "prompt": [USER], "chosen": [YES], "rejected": [NO],
            "rationale": "1. Agree."
        }
    ),
    "bmc_released_qa": (
        {"prompt_id": "qa_0", "chosen": [USER, YES], "rejected": [USER, NO]},
        {"source": "bmc_released_qa", "task": "qa", "prompt": [USER], "chosen": [YES], "rejected": [NO]}
    ),
    "bmc_released_math": (
        {"prompt": [USER], "chosen": [YES], "rejected": [NO], "messages": [USER, YES]},
        {"source": "bmc_released_math", "task": "math", "prompt": [USER], "chosen": [YES], "rejected": [NO]}
    ),
    "bmc_released_ultrafeedback": (
        {"prompt": "Hi?", "prompt_id": "a", "chosen": [USER, YES], "rejected": [USER, NO], "score_chosen": 8.0},
        {"source": "bmc_released_ultrafeedback", "task": "chat", "prompt": [USER], "chosen": [YES], "rejected": [NO]}
    ),
    "bmc_released_qa_sft": (
        {"prompt_id": "qa_0", "messages": [USER, YES]},
        {"source": "bmc_released_qa_sft", "task": "qa", "prompt": [USER], "completion": [YES]}
    ),
    "bmc_released_math_sft": (
        {"prompt_id": "math_0", "messages": [USER, YES]},
        {"source": "bmc_released_math_sft", "task": "math", "prompt": [USER], "completion": [YES]}
    ),
    "reasoning_gym": (
        {"question": "60 + 93 - 16 =", "answer": "137", "metadata": {"expression": "60 + 93 - 16"}},
        closed(
            "reasoning_gym", "math", "60 + 93 - 16 =", f"{STEPS}60 + 93 = 153\n153 - 16 = 137\nThe answer is 137",
            "137"
        )
    ),
    "lab": (
        {
            "task": "math", "question": "Calculate 2 + 3.", "answer": "5", "reasoning": "2 + 3 = 5",
            "solutions": [f"{STEPS}2 + 3 = 5\nThe answer is 5"], "rejected": None
        },
        {
            **closed("lab", "math", "Calculate 2 + 3.", f"{STEPS}2 + 3 = 5\nThe answer is 5", "5"),
            "solutions": [f"{STEPS}2 + 3 = 5\nThe answer is 5"]
        }
    )
}  # fmt: skip
