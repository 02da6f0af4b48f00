"""What an edit must be: every check against texts that it must catch and texts that it must let pass."""

from dataclasses import replace
from typing import Any

import pytest

from bmc.bridging.edits import EditRequest
from bmc.bridging.validators import (
    EditCandidate,
    first_rejection,
    is_truncated,
    lost_share,
    refusal,
    wrong_final_answer,
    wrong_verdict,
)
from bmc.config import BridgeConfig, ValidatorSettings
from bmc.errors import UserErrors
from bmc.llm.client import Completion
from bmc.recipe import parse

MODES = ["targeted", "without_reference", "degrade", "fresh", "polish"]
W, L = "It is 1 + 2 = 3.\nThe answer is 3", "It's 1 + 2 = 4.\nThe answer is 4"
MATH = EditRequest("1", "math", "1 + 2 =", W, L, "3")
# 49 and 44 characters
CHAT = EditRequest("1", "chat", "Why is the sky blue?", "Air scatters blue light more than it does the red.",
            "The sky is blue as it mirrors the wide ocean.")  # fmt: skip
EDIT = "The sky is blue as air scatters blue light more."


def reason(text: str, mode: Any = "targeted", case: EditRequest = CHAT, **limits: Any) -> str | None:
    found = first_rejection(EditCandidate(text, case, mode, "1a2b3c"), ValidatorSettings(**limits))
    return found.reason if found else None


SAME_L, SAME_W = "edit equals y_l", "edit equals y_w"
LOST, CACHED = "edit doesn't state the gold answer", "edit still states the gold answer"


def test_equal_edits_and_final_answers_by_mode(subtests: pytest.Subtests) -> None:
    for text, reasons in [
        (" \n", ["empty edit"] * 5),
        (f"{L}\n", [SAME_L, SAME_L, None, SAME_L, SAME_L]),
        (f" {W}", [None, None, SAME_W, None, SAME_W]),
        ("It's 1 + 2 = 5.\nThe answer is 5", [LOST, LOST, None, LOST, LOST]),
        ("It's 1 + 2 = 5.\nThe reply is 5", [LOST, LOST, None, LOST, LOST]),
        ("It's 1 + 2 = 6/2.\nThe answer is 6/2", [None, None, CACHED, None, None]),
    ]:
        with subtests.test(text=text, reasons=reasons):
            assert [reason(text, mode, MATH) for mode in MODES] == reasons
            if LOST in reasons:
                assert reason(text, "targeted", replace(MATH, answer=None)) is None
                assert reason(text, "targeted", MATH, final_answer=False) is None
                assert reason(text, "targeted", replace(MATH, task="chat")) is None


def test_a_good_edit_passes_in_every_mode() -> None:
    assert [reason(EDIT, mode) for mode in ("targeted", "without_reference", "fresh")] == [None] * 3
    assert reason("Air scatters blue light as it mirrors the wide ocean.", "degrade") is None
    assert reason("Air scatters blue light more than it does red light.", "polish") is None


def test_copies(subtests: pytest.Subtests) -> None:
    for text, mode, found in [
        # y_w and y_l have little in common, so editing y_l can't end at y_w
        (CHAT.chosen, "targeted", "copy of y_w"),
        (CHAT.chosen + "\n", "targeted", "copy of y_w"),
        (CHAT.chosen[:-1] + "!", "targeted", "copy of y_w"),  # 1 of 50 characters
        (CHAT.rejected, "degrade", "copy of y_l"),
        # what the editor doesn't see it can't copy
        (CHAT.chosen, "fresh", None),
    ]:
        with subtests.test(text=text, mode=mode, found=found):
            assert reason(text, mode, max_edit_ratio=1.0) == found
            assert reason(text, mode, max_edit_ratio=1.0, copy_min_original_ratio=1.0) is None


def test_a_copy_is_fine_where_mending_leads_there() -> None:
    assert reason(W, "targeted", MATH) is None  # 4 of 32 characters
    short = EditRequest("1", "qa", "Where?", "In a river", "At the bank", "river")
    assert reason(short.chosen, "targeted", replace(short, answer=None)) is None  # three words
    assert (
        first_rejection(EditCandidate(CHAT.chosen, CHAT, "targeted"), ValidatorSettings(max_edit_ratio=1.0)) is None
    )  # by rule


OTHER = "Zwölf Boxkämpfer jagen Viktor quer übers Watt."  # 46 characters


def test_rewrites(subtests: pytest.Subtests) -> None:
    for mode in MODES:
        with subtests.test(mode=mode):
            rewritten = None if mode == "fresh" else "a rewrite, not an edit: edit ratio above 0.6"
            assert reason(OTHER, mode) == rewritten
            assert reason(OTHER, mode, max_edit_ratio=1.0) is None
            assert reason("Zwölf", mode, replace(CHAT, chosen="One", rejected="Eleven")) is None


def test_drifts(subtests: pytest.Subtests) -> None:
    for text, mode, found in [
        ("ab " * 10 + "cd " * 10, "targeted", None),
        ("ab " * 41, "targeted", "length drift: above 2 times"),  # y_w 60, y_l 30 characters
        ("ab " * 40, "targeted", None),
        ("ab " * 4, "targeted", "length drift: below 0.5 times"),
        ("ab " * 5, "targeted", None),  # 14, and a space at its end: 15
        ("ab " * 9, "polish", "length drift: below 0.5 times"),
        ("ab " * 41, "fresh", None),
    ]:
        with subtests.test(text=text, mode=mode, found=found):
            case = replace(CHAT, chosen="cd " * 19 + "cde", rejected="ab " * 9 + "abc")
            text = text[:-1] + "b"
            assert reason(text, mode, case, max_edit_ratio=1.0, copy_min_original_ratio=1.0) == found
            assert reason(text, mode, case, max_edit_ratio=1.0, min_length_ratio=0.0, max_length_ratio=None) is None


REFUSALS = [
    "I'm sorry, but I can’t help with that.", "I cannot assist with this request.",
    "As an AI language model, I cannot provide medical advice.", "Sorry, I can't do that.",
    "Thank you for asking! However, I cannot fulfill your request.", "I apologize, but I'm unable to comply with it.",
    "I must respectfully decline.",
    "Unfortunately, as a large language model I am not able to generate such content.",
    "I won't be able to help you with that.", "I can't edit this text.", "I can't do that.",
    "I cannot do this because it would be harmful.", "We're sorry, but we can't do that.",
    "We cannot assist with this request.", "I cannot and will not provide any guidance.",
    "I can't create explicit content."
]  # fmt: skip
NO_REFUSALS = [
    "I can't believe you did it!", "I cannot help but notice that it rained.",
    "I'm sorry, but I can't make it to the meeting.", "I can't answer the phone right now.",
    "He said: \"I'm sorry, I can't help you.\"", "Models refuse when they say that they cannot help.",
    "I'm sorry for your loss.", "You can't help with that.", "If I can't help with that, call again.", "",
    "We cannot do that without equipment.", "We can't help the rain.", "We cannot answer this with the data at hand.",
    "We can't write that as a fraction of whole numbers.", "I cannot do this alone.",
    "I can't share this secret with anyone, so I keep it.", "I can't give that up."
]  # fmt: skip


def test_refusals(subtests: pytest.Subtests) -> None:
    for text in REFUSALS:
        with subtests.test(text=text):
            assert refusal(text, 200)
            assert refusal("x" * 250 + ". " + text, 200) is None
            for mode in MODES:
                assert reason(text, mode) == "refusal"
                for known in ({"chosen": text + " Ask a doctor."}, {"rejected": f"{CHAT.rejected}\n{text}"}):
                    assert reason(text, mode, replace(CHAT, **known)) != "refusal"
            assert reason(text, refusal_window=0) != "refusal"


def test_what_only_sounds_like_a_refusal(subtests: pytest.Subtests) -> None:
    for text in NO_REFUSALS:
        with subtests.test(text=text):
            assert refusal(text, 200) is None


LEAKS = [
    "Here is the revised response:\n\n", "Sure! Here's the edited draft: ", "**Revised draft:**\n",
    "I have corrected the draft so that it is right. ", "As the reference answer says, ",
    "Here’s a polished version of your text:\n", "Revised: ", "Draft: ", "**Edited version**: ",
    "[Edited for accuracy] ", "(corrected)\n", "## Revised Response\n", "Here's my revision:\n",
    "Here is the answer, revised:\n", "Here's the text with minimal changes:\n", "According to the reference, "
]  # fmt: skip
LEAKS_AFTER = [
    "\n\nChanges made:\n- a word", "\n\n(Note: I have changed the number.)", "\nSummary of the changes: one.",
    " (I replaced the mirror with air.)", "\n**Explanation:** the draft spoke of a mirror.",
    "\n\nExplanation: I replaced the wrong word.", "\n*I changed the cause to scattering.*", " [Edited for accuracy]",
    "\nEdits: mirror became air.", "\nWhat I changed: the cause.", "\n**Key changes:**\n- mirror → air",
    "\nEdit: mirror became air.", "\nReason for change: oceans are no mirrors.", "\n(Changed mirror to air.)",
    '\nNote: "mirror" was replaced with "air".', "\nI made minimal changes to the text.",
    "\nI kept the rest unchanged.", "\nNo other changes were needed.", "\nI hope this revision helps!"
]  # fmt: skip


def test_talk_about_the_edit(subtests: pytest.Subtests) -> None:
    for leak in LEAKS + LEAKS_AFTER:
        with subtests.test(leak=leak):
            text = leak + EDIT if leak in LEAKS else EDIT + leak
            assert reason(text, max_edit_ratio=1.0, max_length_ratio=None) == "talks about the edit"
            assert reason(text, meta_window=0, max_edit_ratio=1.0, max_length_ratio=None) is None
            for name in ("chosen", "rejected"):  # what is there already is no leak
                known = replace(
                    CHAT, **{name: f"{CHAT.chosen}{leak}" if leak in LEAKS_AFTER else f"{leak}{CHAT.chosen}"}
                )
                assert reason(text, "targeted", known, max_edit_ratio=1.0, max_length_ratio=None) is None


def test_a_request_for_an_edit_may_be_answered_as_such(subtests: pytest.Subtests) -> None:
    for prompt, text, leaks in [
        ("Please proofread my text: It are blue.", "Here is the corrected version: It is blue.", False),
        ("Please proofread my text: It are blue.", "Here is the corrected draft: It is blue.", True),
        ("Improve this draft: It are blue.", "Here is the improved draft: It is blue.", False),
        ("Which answer is correct?", "Here is the corrected answer: It is blue.", True),
        ("Make this paragraph shorter: It are blue.", "Here's the revised paragraph: It is blue.", False),
        ("Can you fix the grammar? It are blue.", "Here is the corrected text: It is blue.", False),
        ("Who was picked first in the draft?", "He was, since the draft was held in 1970.", False),
    ]:
        with subtests.test(prompt=prompt, text=text, leaks=leaks):
            case = replace(
                CHAT, prompt=prompt, chosen="It is blue and wide as can be now.", rejected="It are blue and wide."
            )
            found = reason(text, "fresh", case)
            assert found == ("talks about the edit" if leaks else None)


def test_delimiters(subtests: pytest.Subtests) -> None:
    for leak in [
        "<|im_start|>", "<|im_end|>", "<|eot_id|>", "[INST]", "[/INST]", "<<SYS>>", "</s>", "<start_of_turn>",
        "<bos>", "<｜User｜>", "</draft>", "<revised 1a2b3c>", "1a2b3c", "<verdict>good</verdict>", "\n### Response:",
        "~~hammer~~", "<del>hammer</del>", "{--hammer--}", "[-hammer-]{+pick+}"
    ]:  # fmt: skip
        with subtests.test(leak=leak):
            assert reason(EDIT + leak, max_length_ratio=None) == "template delimiters in the edit"
            assert reason(EDIT + leak, delimiters=False, max_length_ratio=None) is None
            if "1a2b3c" not in leak:  # the mark is in no text
                for name in ("prompt", "chosen", "rejected"):
                    known = replace(CHAT, **{name: f"{getattr(CHAT, name)} {leak}"})
                    assert reason(EDIT + leak, "targeted", known, max_length_ratio=None) is None


def test_markup_is_no_delimiter() -> None:
    text = "The sky is <b>blue</b> as a[i] < b | c > d scatters [1] it. <draw>"
    assert reason(text, max_edit_ratio=1.0) is None


def test_white_space_is_no_edit(subtests: pytest.Subtests) -> None:
    for edit in [f" {L}", L.replace(" ", "  "), L.replace("\n", " \u00a0\n\n")]:
        with subtests.test(edit=edit):
            assert reason(edit, case=MATH, final_answer=False) == SAME_L


def test_good_needs_the_gold_answer_in_y_l() -> None:
    wrong = "verdict good, but y_l doesn't state the gold answer"
    found = wrong_verdict(MATH, ValidatorSettings())
    assert found is not None
    assert found.reason == wrong
    assert wrong_verdict(replace(MATH, answer="4"), ValidatorSettings()) is None
    assert wrong_verdict(replace(MATH, answer=None), ValidatorSettings()) is None
    assert wrong_verdict(MATH, ValidatorSettings(final_answer=False)) is None
    assert wrong_verdict(CHAT, ValidatorSettings()) is None


def test_the_final_answer_may_be_a_label_of_the_prompt() -> None:
    case = EditRequest("1", "qa", "Where? (A) bank (B) money", "The answer is (B)", "The answer is (A)", "money")
    assert wrong_final_answer(EditCandidate("The answer is (B)", case, "targeted"), ValidatorSettings()) is None
    assert wrong_final_answer(EditCandidate("The answer is (A) money", case, "targeted"), ValidatorSettings())
    assert wrong_verdict(replace(case, rejected="It is (B).\nThe answer is B"), ValidatorSettings()) is None
    assert wrong_verdict(case, ValidatorSettings())


def test_what_an_edit_adds_is_no_rewrite() -> None:
    """All of y_l and twice as much again: an edit ratio of 0.67, and no word of y_l lost."""
    more = f"{CHAT.rejected} Air scatters blue light far more than it does red light, so blue comes from all around us."
    assert reason(more, max_length_ratio=None) is None
    assert lost_share(CHAT.rejected, more) == 0
    # 6 of 10 words are new, one of them in the place of a word that went: a rewrite by neither measure
    assert lost_share("a b c d e", "a x b y c d z u v w") == pytest.approx(0.2)


def test_words_of_scripts_without_spaces_count(subtests: pytest.Subtests) -> None:
    for rejected, short in [
        ("河里", True),
        ("这个答案是错误的，因为天空不是镜子。", False),
        ("ไม่ใช่เพราะว่าท้องฟ้าเป็นกระจก", False),
    ]:
        with subtests.test(rejected=rejected, short=short):
            case = replace(CHAT, rejected=rejected, chosen="天空呈蓝色是由于空气散射蓝光比红光更多。")
            rewritten = "Zwölf Boxkämpfer jagen"[: len(rejected)]
            assert (reason(rewritten, case=case, min_length_ratio=0.0) is None) == short


def test_replies_that_are_not_whole(subtests: pytest.Subtests) -> None:
    for text, finish_reason, found in [
        ("x", "stop", None),
        ("x", None, None),
        ("x", "length", "cut off: the reply reached max_tokens"),
        ("", "length", "cut off: the reply reached max_tokens"),
        ("x", "content_filter", "cut off: by the endpoint's content filter"),
        (" \n", "stop", "empty reply"),
    ]:
        with subtests.test(text=text, finish_reason=finish_reason, found=found):
            objected = is_truncated(Completion(text, finish_reason, 1, 1), ValidatorSettings())
            assert (objected.reason if objected else None) == found
            assert is_truncated(Completion("x", "length", 1, 1), ValidatorSettings(cut_off=False)) is None


def test_thresholds_stand_in_the_recipe() -> None:
    given = ["--output_dir", "o", "--dataset_mixture.datasets", "[{id: a}]"]
    (config,) = parse([*given, "--validators.max_edit_ratio", "0.4"], BridgeConfig)
    assert config.validators == ValidatorSettings(max_edit_ratio=0.4)
    with pytest.raises(UserErrors) as raised:
        parse([*given, "--validators", "{max_edit_ration: 1, min_edit_ratio: 2, cut_off: maybe}"], BridgeConfig)
    assert str(raised.value).splitlines() == [
        "command line: validators.max_edit_ration: unknown key (did you mean 'max_edit_ratio'?)",
        "command line: validators.min_edit_ratio: must be less than or equal to 1, got 2",
        'command line: validators.cut_off: must be true or false, got "maybe"',
    ]
