"""Talk about the edit: tables of edits that hold some, and of edits that only sound like it."""

import time

import pytest

from bmc.bridging.edit_talk import Originals, plain, talk_about_edit, wraps_all

# name → x, y_w, y_l, an honest edit of y_l
PAIRS = {
    "sky": (
        "Why is the sky blue?", "Air scatters blue light more than it does the red.",
        "The sky is blue as it mirrors the wide ocean.", "The sky is blue as air scatters blue light more."
    ),
    "ice": (
        "How do climbers get up a frozen waterfall?", "They swing a pick into the ice and step up on crampons.",
        "They hit the ice with a hammer. Then they pull themselves up.",
        "They hit the ice with a pick. Then they pull themselves up."
    ),
    "cake": (
        "Tell me a story about baking.", "I baked a cake with my gran. We used salt and butter.",
        "I baked a cake with my gran and we used sugar. My cat ate it.",
        "I baked a cake with my gran and we used butter. My cat ate it."
    ),
    "tool": (
        "What changed in the second release of the tool?",
        "It is the improved version of the tool, with a faster engine.",
        "The tool has a new name and a slower engine.", "The tool has a new name and a faster engine."
    ),
    "sum": ("1 + 2 =", "1 + 2 = 3\nThe answer is 3", "1 + 2 = 4\nThe answer is 4", "1 + 2 = 3\nThe answer is 3.")
}  # fmt: skip

# pair, what an editor writes before its text, what after it
TALK = [
    ("ice", "", "\n\n---\nKey change: pick instead of hammer"),
    ("ice", "", "\nThe only correction: a pick."),
    ("ice", "", "\n\nExplanation of edit: a pick is what climbers use."),
    ("ice", "", "\n**Reason for my change**\nClimbers use a pick."),
    ("ice", "", " I replaced the hammer with a pick."), ("ice", "", "\nI replaced the hammer with a pick."),
    ("ice", "", "\n\nReplaced hammer with pick."), ("ice", "", "\n(hammer → pick)"),
    ("ice", "", "\n- hammer -> pick"), ("ice", "", '\n"hammer" became "pick".'),
    ("ice", "", "\nWe swapped the hammer for a pick."), ("ice", "", "\n* Changed “hammer” to “pick”"),
    ("ice", "", "\n\nI've used a pick instead of a hammer."),
    ("ice", "I swapped the tool for the right one. ", ""),
    ("ice", "Corrected the tool to a pick.\n", "\nChanged hammer to pick."),
    ("cake", "", " (I replaced the sugar with butter.)"), ("cake", "", "\nI replaced sugar with butter."),
    ("cake", "", "\n(I corrected the wording.)"), ("sky", "Reference: ", ""), ("sky", "**Reference:** ", ""),
    ("sky", "Final version:\n", ""), ("sky", "**Final Version:** ", ""), ("sky", "My edit: ", ""),
    ("sky", "New draft:\n\n", ""), ("sky", "Draft 2: ", ""), ("sky", "Response (corrected): ", ""),
    ("sky", "The final text: ", ""), ("sky", "Suggested revision: ", ""), ("sky", "Minimally edited text:\n", ""),
    ("sky", "With corrections: ", ""), ("sky", "Here it is, with the corrections:\n", ""),
    ("sky", "Here is my final version:\n", ""), ("sky", "Sure! This is the updated response:\n", ""),
    ("sky", "# Revised\n", ""),
    ("sky", "--- Revised ---\n", "\n--- End of revised text ---"),
    ("sky", "[Edited] ", ""), ("sky", "", " [Edited]"), ("sky", "", "\n[Edited by AI]"), ("sky", "", "\n(edited)"),
    ("sky", "", "\n[Edited: the cause was wrong]"), ("sky", "", "\n[Edit: fixed the cause]"),
    ("sky", "[EDITED VERSION]\n", ""), ("sky", "", "\n*Slightly revised for accuracy.*"),
    ("sky", "", "\n\nChangelog:\n- cause"), ("sky", "", "\n\n## Change log\n- The cause"),
    ("sky", "", "\n\nEdit notes: cause"),
    ("sky", "", "\n\n- Fixed the grammar\n- Clarified the wording"),
    ("sky", "", "\n1. Corrected a factual error."), ("sky", "", "\n\n**What changed:**\n- the cause"),
    ("sky", "", "\nModifications: one."), ("sky", "", "\nThe rest remains unchanged."),
    ("sky", "", "\nOnly minimal changes were made."),
    ("sky", "", " Let me know if you'd like any further changes!"),
    ("sky", "", "\nThe revised version keeps the opening."),
    ("sky", "", "\nThis edit fixes the cause."),
    ("sky", "", "\nBased on the reference, this is right."),
    ("sky", "The reference says so: ", ""), ("sky", "", "\nAdjusted the tone and the wording."),
    ("sky", "Hier ist die überarbeitete Fassung:\n", ""), ("sky", "Korrigierte Version: ", ""),
    ("sky", "Überarbeitet: ", ""),
    ("sky", "", "\nIch habe das Meer durch Luft ersetzt."),
    ("sky", "", "\nÄnderungen: Meer → Luft"), ("sky", "Voici la version révisée :\n", ""),
    ("sky", "Texte corrigé :\n", ""), ("sky", "", "\nJ'ai remplacé l'océan par l'air."),
    ("sky", "Aquí está la versión corregida:\n", ""), ("sky", "Respuesta revisada: ", ""),
    ("sky", "", "\nHe cambiado la causa."), ("sky", "Ecco la versione corretta:\n", ""),
    ("sky", "Aqui está a versão revisada:\n", ""), ("sky", "Hier is de herziene versie:\n", ""),
    ("sky", "Вот исправленная версия:\n", ""), ("sky", "", "\nЯ заменил океан на воздух."),
    ("sky", "Poprawiona wersja:\n", ""), ("sky", "以下是修改后的回答：\n", ""), ("sky", "修订版：", ""),
    ("sky", "修改後的版本：\n", ""), ("sky", "", "\n我把海洋改成了空气。"), ("sky", "", "\n修改说明：原因。"),
    ("sky", "修正後の文章：\n", ""), ("sky", "以下は修正した回答です：\n", ""),
    ("sky", "", "\n「海」を「空気」に変更しました。"), ("sky", "수정된 답변:\n", ""),
    ("sky", "Düzeltilmiş metin:\n", ""), ("sky", "النص المعدل:\n", ""), ("sum", "Reference: ", ""),
    ("sum", "", "\nI fixed the sum."), ("sum", "", "\n4 → 3"), ("ice", "Edited text below:\n", ""),
    ("ice", "Below you'll find the revised answer.\n", ""),
    ("ice", "Okay, I've made the edits:\n", ""), ("ice", "I have fixed it:\n", ""),
    ("ice", "Revised version (changes in bold):\n", ""), ("ice", "✏️ Edited:\n", ""), ("ice", "Better:\n", ""),
    ("ice", "Fixed:\n", ""), ("ice", "Rewrite: ", ""), ("ice", "Here's a better version:\n", ""),
    ("ice", "A better answer would be: ", ""), ("ice", "A more accurate answer: ", ""), ("ice", "~ revised ~\n", ""),
    ("ice", "Amended response follows.\n", ""),
    ("ice", "Please find the corrected text below:\n", ""),
    ("ice", "Version after editing:\n", ""), ("ice", "Voilà la version corrigée.\n", ""),
    ("ice", "Revised draft below\n\n", ""),
    ("ice", "Certainly! Here's the text with the error fixed:\n", ""),
    ("ice", "Here is the draft with the tool corrected:\n", ""),
    ("ice", "Here you go, with minimal edits:\n", ""), ("ice", "<b>Revised</b>: ", ""),
    ("ice", "Sure, I can revise that. ", ""), ("ice", "Sure, here's the corrected sentence: ", ""),
    ("ice", "The draft, revised: ", ""), ("ice", "REVISED TEXT\n", ""), ("ice", "Revised\n\n", ""),
    ("ice", "Edited Draft\n", ""), ("ice", "Response:\n", ""), ("ice", "Corrected answer\n\n", ""),
    ("ice", "Die verbesserte Antwort lautet:\n", ""), ("ice", "Version améliorée\n", ""),
    ("ice", "改进后的回答如下：\n", ""), ("ice", "改后：", ""), ("ice", "訂正版：\n", ""),
    ("ice", "校正済み：\n", ""), ("ice", "개선된 답변은 다음과 같습니다:\n", ""), ("ice", "संशोधित उत्तर:\n", ""),
    ("ice", "Bản đã chỉnh sửa:\n", ""), ("ice", "Versi yang telah diperbaiki:\n", ""),
    ("ice", "Version corregida\n", ""), ("ice", "Ось виправлена версія:\n", ""), ("ice", "Upravená verze:\n", ""),
    ("ice", "", "\nNote: only the tool was changed."), ("ice", "", "\nNote: changed hammer to pick"),
    ("ice", "", "\n(Only the tool has been changed; everything else is as in the draft.)"),
    ("ice", "", "\nThe answer has been corrected."), ("ice", "", "\nI think this version is better."),
    ("ice", "", "\nThe corrected word is pick."), ("ice", "", "\nPS: I corrected the tool."),
    ("ice", "", "\nCorrection: it's a pick, not a hammer."),
    ("ice", "", "\nIn the revised text, the hammer is now a pick."),
    ("ice", "", "\nThe hammer has been replaced by a pick."),
    ("ice", "", "\nThe hammer was replaced with a pick."),
    ("ice", "", "\nI had to change one word."), ("ice", "", "\nI only touched the tool."),
    ("ice", "", "\nhammer => pick"), ("ice", "", "\nIch habe nur ein Wort geändert."),
    ("ice", "", "\n[Changes: hammer → pick]"), ("ice", "", "\n[hammer changed to pick]"),
    ("ice", "", "\n*Edits:* hammer/pick"), ("ice", "", "\n---\nEdits made: 1"), ("ice", "", "\nEDIT: pick"),
    ("ice", "", "\n\nEdit summary: fixed the tool."), ("ice", "", "\nI hope this is better!"),
    ("ice", "", "\nIs this what you wanted?"), ("ice", "", "\nMinor edit: pick."), ("ice", "", "\n(1 word changed)"),
    ("ice", "", "\nWord changed: hammer"), ("ice", "", "\nVerdict: edit"),
    ("ice", "", '\nI used "pick" instead of "hammer".'),
    ("ice", "", "\nUsing a pick rather than a hammer is accurate, so the draft was changed."),
    ("ice", "", "\nThis now matches the reference."), ("ice", "", "\nThis is closer to the reference."),
    ("ice", "", "\nKept the second sentence."), ("ice", "", "\nThe second sentence was kept as is."),
    ("ice", "", "\nNothing else was changed."), ("ice", "", "\nAll other text unchanged."),
    ("ice", "", "\nJ'ai seulement changé un mot."),
    ("ice", "", "\nNota: se cambió martillo por piqueta."),
    ("ice", "", "\nHinweis: Hammer wurde durch Pickel ersetzt."),
    ("ice", "", "\n注：将锤子改为镐。"), ("ice", "", "\n（已修改）"), ("ice", "", "\n※ハンマーをピックに修正"),
    ("ice", "", "\n(수정됨)")
]  # fmt: skip

# pair, a sentence before the honest edit, one after it
NO_TALK = [
    ("cake", "", " (I added some salt to it.)"),
    ("cake", "", "\nI added some salt because I like it."),
    ("cake", "", " I replaced the oven the next day."), ("cake", "", " We changed the plan and went home."),
    ("cake", "", " (I fixed the oven later.)"), ("cake", "I kept the best for last. ", ""),
    ("cake", "", "\nI removed the cake from the oven with my gloves."),
    ("cake", "", " I corrected my gran once and she laughed."),
    ("cake", "", " She said that I improved."), ("cake", "", " I made some changes in my life."),
    ("tool", "This is the improved version of the tool. ", ""),
    ("tool", "Here is the improved version of the tool: ", ""),
    ("tool", "", " This is an updated version of the engine."),
    ("tool", "", " The updated engine is faster."), ("tool", "", " The changes to the engine are many."),
    ("tool", "", " It now replaces the old engine with a new one."),
    ("tool", "Version 2 is out. ", ""), ("tool", "Version: 2.0. ", ""), ("tool", "", " (Updated in 2020.)"),
    ("tool", "", " The final version is faster still."), ("tool", "Here is the changelog of the tool. ", ""),
    ("tool", "", " The editor has revised its licence."),
    ("ice", "", " The pick replaced the ladder in 1908."),
    ("ice", "", " A pick is better than a ladder."), ("ice", "", " (They added spikes to their shoes.)"),
    ("ice", "", " Some use an axe instead of a pick."), ("ice", "", " The rest of the way is easy."),
    ("ice", "", " Nothing else has changed since then."), ("ice", "", " They keep the original rope."),
    ("ice", "Tools: ", ""), ("ice", "Here is how: ", ""), ("ice", "Note: this is dangerous. ", ""),
    ("ice", "", " Let me know if you need more help."), ("ice", "", " Hope this helps!"),
    ("ice", "", " Reference books say more."), ("ice", "", "\nReferences: the climbers' manual."),
    ("ice", "[1] ", ""), ("ice", "**Ice** ", ""),
    ("ice", "", " Climbers changed their minds about hammers."),
    ("sky", "Explanation: ", ""), ("sky", "Answer: ", ""), ("sky", "Sure! Here is why. ", ""),
    ("sky", "", " It was corrected by Rayleigh in 1871."),
    ("sky", "", " An improved theory came with Einstein."),
    ("sky", "", " Sunlight → air → blue light."), ("sky", "", " In this draft of air it is cold."),
    ("sky", "", " Corrected for dust, it is bluer."),
    ("sky", "", " The modified gravity of the moon plays no part."),
    ("sky", "Edison thought about it. ", ""), ("sky", "Edits of light are rare. ", ""),
    ("sky", "", " The text of the law of Rayleigh says so."),
    ("sky", "", " It's a reference to Rayleigh."),
    ("sky", "", " The response of the eye matters, too."),
    ("sky", "", " See the reference manual."), ("sky", "Der Himmel ist verbessert sichtbar: ", ""),
    ("sky", "", "\nDie Änderungen des Lichts sind klein."),
    ("sky", "", "\nLe ciel est bleu : l'air diffuse."), ("sky", "", "\n天空是蓝色的：空气散射。"),
    ("sky", "", "\n改进的望远镜看得更远。"), ("sky", "", "\n空は青い。"),
    ("sky", "", "\nEl cielo ha cambiado: es azul."), ("sum", "Step 1: ", ""), ("sum", "Let's add. ", ""),
    ("sum", "Final answer below.\n", ""), ("sum", "", "\nFinal answer: 3"), ("sum", "Solution: ", ""),
    ("sum", "", "\n\\boxed{3}"), ("sum", "1 → 2 → ", ""), ("tool", "The revised budget was passed. ", ""),
    ("tool", "", " The original response of the government was different."),
    ("tool", "Here is an improved algorithm. ", ""),
    ("cake", "I made a cake (I added sugar) and ate it. ", ""),
    ("cake", "", " I made many changes."), ("tool", "", " The law needs changes: it is old."),
    ("tool", "", " No other changes are known."),
    ("sky", "", " See the reference manual, according to the reference desk."),
    ("tool", "", " The draft law says so."), ("ice", "Here are five answers: ", ""),
    ("tool", "", " The updated version is faster."),
    ("tool", "", " The old licence has been replaced by a new one."),
    ("sum", "", "\nWe can rewrite 3 as 2 + 1."), ("cake", "", " I wanted to change the oven."),
    ("tool", "", " The revised text of the licence is long."),
    ("tool", "", " One word: fast.")
]  # fmt: skip


def talk(pair: str, before: str, after: str, window: int = 200, open_task: bool = True) -> str | None:
    prompt, chosen, rejected, edit = PAIRS[pair]
    originals = Originals.of(prompt, chosen, rejected, rejected, open_task)
    return talk_about_edit(before + edit + after, originals, window)


def test_talk_about_the_edit_is_found() -> None:
    assert [row for row in TALK if talk(*row) is None] == []
    assert [row for row in TALK if talk(*row, window=0)] == []


def test_what_only_sounds_like_talk_passes() -> None:
    assert [(row, found) for row in NO_TALK if (found := talk(*row))] == []


def test_a_sentence_of_the_originals_may_change_its_punctuation() -> None:
    prompt, chosen, rejected, edit = PAIRS["ice"]
    told = "I replaced the hammer with a pick"
    for known in ((prompt, f"{chosen} {told}, and off we went.", rejected), (f"{prompt} {told}.", chosen, rejected)):
        originals = Originals.of(*known, rejected, True)
        assert talk_about_edit(f"{edit} ({told}!)", originals, 200) is None


def test_what_stands_in_y_w_or_y_l_is_no_talk() -> None:
    found = []
    for row in TALK:
        prompt, chosen, rejected, edit = PAIRS[row[0]]
        text = row[1] + edit + row[2]
        for known in ((f"{row[1]}\n{chosen}\n{row[2]}", rejected), (chosen, f"{row[1]}\n{rejected}\n{row[2]}")):
            if phrase := talk_about_edit(text, Originals.of(prompt, *known, known[1], True), 200):
                found.append((row, phrase))
    assert found == []


def test_where_x_asks_for_an_edit(subtests: pytest.Subtests) -> None:
    for prompt, open_task, lead, talks in [
        ("Please proofread my text.", True, "Here is the corrected version:\n", False),
        ("Please proofread my text.", False, "Here is the corrected version:\n", True),
        ("Bitte korrigiere meinen Text.", True, "Hier ist die korrigierte Fassung:\n", False),
        ("请修改我的句子。", True, "以下是修改后的句子：\n", False),
        ("Improve this draft.", True, "Here is the improved draft:\n", False),
        ("Make it shorter.", True, "Reference: ", True),
    ]:
        with subtests.test(prompt=prompt, open_task=open_task, lead=lead, talks=talks):
            _, chosen, rejected, edit = PAIRS["sky"]
            originals = Originals.of(prompt, chosen, rejected, rejected, open_task)
            assert (talk_about_edit(lead + edit, originals, 200) is not None) == talks


def test_wrappers_around_the_whole_edit() -> None:
    _, chosen, rejected, edit = PAIRS["sky"]
    wrapped = [
        f"```\n{edit}\n```", f"```text\n{edit}\n```\n", f"~~~\n{edit}\n~~~", f'"{edit}"', f"“{edit}”",
        f"<answer>{edit}</answer>", f"**{edit}**", f"> {edit}\n> So it is.", f'{{"revised": "{edit}"}}'
    ]  # fmt: skip
    bare = [
        edit, f"So: ```{edit}```", f"```\n{edit}\n```\nDone.", f'"{edit}" she said, "or not"', f"**Sky** {edit} **!**"
    ]  # fmt: skip
    assert [text for text in wrapped if not wraps_all(text, "x", (chosen, rejected))] == []
    assert [text for text in bare if wraps_all(text, "x", (chosen, rejected))] == []
    assert [text for text in wrapped if wraps_all(text, "x", (text, rejected))] == []
    assert [text for text in wrapped if wraps_all(text, "x", (chosen, rejected), fence_only=True)] == wrapped[:3]
    assert not wraps_all(wrapped[0], "Answer between ``` and ```.", (chosen, rejected))


def test_long_texts_take_no_time(subtests: pytest.Subtests) -> None:
    for text in ["a " * 100_000, "x" * 200_000, "空" * 200_000, "I " * 100_000, "((((" * 50_000]:
        with subtests.test(text=text):
            started = time.perf_counter()
            talk_about_edit(text, Originals.of("x", "y", text[:-1] + "z", text[:-1] + "z", True), 200)
            assert time.perf_counter() - started < 3


def test_case_apostrophes_and_spaces_are_folded() -> None:
    assert plain(" I’ve\tDONE \r\n it`s ") == "i've done \n it's"
