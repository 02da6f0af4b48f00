"""Find talk about the edit in an edit: lead-ins, labels, remarks and changelogs that an LLM puts around its text.

Only what is new counts: a sentence that stands in x, y_w or y_l is no talk. What is new is held against patterns of
such talk in English and, for lead-ins, labels and remarks, in other languages; and against the edit itself: "hammer →
pick" is talk where y_l has the hammer, the rest of the edit has not, and the other way round for the pick.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

import regex

_EDITED = (
    r"(?:revised|edited|improved|corrected|mended|polished|re-?written|updated|modified|refined|enhanced|amended|fixed|"
    r"changed|adjusted|reworked|reworded|rephrased|proofread)"
)
_CHANGED = rf"(?:{_EDITED}|rewrote|replaced|swapped|substituted|clarified|shortened|simplified|tightened)"
_MADE = r"(?:removed|added|kept|left|inserted|deleted|made|dropped)"  # said of much else, too
_OURS = r"(?:draft|reference|response|answer|reply)"
_TEXT = rf"(?:{_OURS}|version|text|paragraph|passage|solution|essay|story|sentence|letter|email)"
_WORDING = (
    rf"(?:{_OURS}|text|sentences?|paragraphs?|passages?|wording|phrasing|grammar|spelling|punctuation|typos?|clarity|"
    r"tone|conciseness|readability|(?:factual )?(?:error|mistake|inaccurac(?:y|ie))s?|flow|accuracy|"
    r"final answer|last line|first line|conclusion|(?:first|second|third|last|final) step)"
)
_CHANGES = r"(?:changes|edits|corrections|revisions|modifications|adjustments|fixes)"
_I = r"\b(?:i|we)(?:'ve| have)? (?:\w+ly |also |only |just |then )?"
_LABEL = r"(?:note|explanation|rationale|reasoning|comment|remark|changes?|edits?|revisions?|correction)s?"
_OPENS, _SHUTS = r"[(\[*_{>\-–—•#=\s\"“]*", r"[)\]*_}\-–—#=~\s\"”.!:]*"

# What no response says unless it is about the edit, each with an example.
_META = tuple(
    re.compile(pattern, re.MULTILINE)
    for pattern in (
        # Here is the revised draft; but not: This is the improved version of the tool
        rf"(?:here(?:'s| is| are)|below is|this is|the following is) (?:the |my |your |an? )?(?:\w+ )?{_EDITED}"
        rf"(?: and \w+)? {_TEXT}\b(?! (?:of|for) (?!(?:the |your |my |this )?(?:\w+ )?{_TEXT}\b))",
        # Revised: …   **Corrected answer:** …   Minimally edited text: …
        rf"^(?:<\w+>)?\W*(?:the |my |\w+ly )?{_EDITED}(?: {_TEXT}| output)?(?: \([^)\n]*\))?(?:</\w+>)?\W*:",
        # ## Revised response   **Corrected version**   --- Revised ---
        rf"^(?:#+ +|\*\*|[-=~]+ ?|\[)(?:(?:the|my|end of|start of|begin|end) )*{_EDITED}(?: {_TEXT})?{_SHUTS}$",
        # Please find the corrected text below   Here you go, with minimal edits:   A better answer would be:
        rf"\b(?:the|my|your) {_EDITED} (?:text|wording|sentence|paragraph|passage|word)\b(?! (?:of|for)\b)",
        rf"\bhere(?:'s| is| are| you go| it is)\b[^.\n]{{0,40}}\bwith (?:\w+ ){{0,3}}(?:{_CHANGES}|"
        rf"{_EDITED})\W*?(?::|$)",
        r"^\W*(?:here(?:'s| is) )?(?:an? |the )?(?:much |slightly )?(?:better|more \w+|cleaner|clearer) "
        r"(?:version|answer|response|text|wording|draft|sentence)(?: would be| is| could be)?\W*:",
        rf"^\W*(?:version|text|draft|response) (?:after|with) (?:the )?(?:editing|edits|revision|{_CHANGES})\W*:",
        # The answer has been corrected.   Nothing else was changed.   (1 word changed)   Verdict: edit
        rf"\b(?:the|this|your) (?:\w+ )?{_WORDING} (?:has been|was|is now|were|have been) (?:also )?(?:{_EDITED}|"
        rf"kept|left)"
        r"(?: as is| as it was| unchanged| intact)?[.!)\]]*$",
        r"^\W*(?:nothing else|no other (?:words?|parts?|text)) (?:was|were|has been|have been) (?:changed|edited|"
        r"touched)\W*$",
        r"^\W*all (?:the )?other (?:\w+ )?(?:was |is |were |remains? |left |kept |stays? )?(?:unchanged|untouched|"
        r"intact)\b",
        r"^\W*(?:\d+|one|two|three|no)? ?(?:other )?(?:words?|sentences?|phrases?)(?: was| were| has been)? "
        r"(?:changed|edited|replaced|corrected)\W*(?::|$)",
        r"^\W*verdict\W*(?:edit|good)\W*$",
        r"\bi (?:can|will|could) (?:revise|edit|rewrite|correct|proofread) (?:that|this|it|the|your)\b",
        # I hope this is better!   Is this what you wanted?
        r"\bi (?:hope|think|believe) (?:this|it|that)(?: version)? (?:is|reads|sounds|works) (?:\w+ )?(?:better|"
        r"clearer|improved)\b",
        r"^\W*is (?:this|that|it) (?:what you (?:wanted|had in mind|were looking for)|better)\b",
        # Final version:   New draft:   My edit:   Suggested revision:   Draft 2:   Response (corrected):
        r"^\W*(?:(?:the|my|your|a|final|new|full|complete|clean|minimal|suggested|proposed|better|whole|last|second) )+"
        r"(?:version|draft|revision|edit|rewrite|response|text|wording|reply)(?: \d| \([^)\n]*\))?\W*:",
        rf"^\W*(?:version|draft|revision|rewrite|response|answer|text|reply) (?:\d\W*:|[(\[] ?{_EDITED}[^)\]\n]*[)\]])",
        rf"^\W*(?:after (?:the )?(?:edit|edits|editing|revision|changes)|with (?:the )?{_CHANGES}(?: (?:made|"
        rf"applied))?)\W*:",
        # Here's my revision   Here is the answer, revised   Here it is with the changes
        r"\b(?:here(?:'s| is)|this is|below is) (?:my|the|a|your) (?:\w+ )?(?:revision|rewrite|edit)\b",
        r"\bhere(?:'s| is) (?:my|the|your) final (?:draft|version|revision)\b(?! of)",
        rf"\bhere(?:'s| is) (?:my|the|a|your) {_TEXT},? (?:{_EDITED}|with (?:\w+ ){{0,2}}{_CHANGES})\b",
        rf"\bhere it is,? (?:{_EDITED}|with (?:\w+ ){{0,2}}{_CHANGES})\b",
        # I made minimal changes to   I kept the rest as   No other changes were needed   further edits   This revision
        rf"{_I}made (?:only )?(?:\w+ ){{0,2}}{_CHANGES}(?= (?:so|only|and)\b|:"
        rf"| (?:to|in) (?:the|your|this) (?:\w+ )?{_WORDING}\b)",
        rf"{_I}(?:kept|left) (?:the rest|everything else|the original|the other) (?:\w+ )?"
        rf"(?:unchanged|untouched|intact|as|{_WORDING})\b",
        rf"\bno (?:other|further|additional) {_CHANGES} (?:were|are|was|have been) (?:made|needed|necessary|"
        rf"required)\b",
        rf"^\W*(?:only )?(?:minimal|minor|small|necessary|needed|no other) {_CHANGES}(?: (?:were|have been|are))?"
        r"(?: \w+ly)? ?(?:made|applied|needed|only|$)",
        rf"\bonly (?:the )?(?:\w+ )?{_CHANGES} (?:were|have been) made\b",
        r"^\W*(?:the rest|everything else|all else)(?: of the \w+)? (?:is|was|has been|remains|stays|stayed)"
        r"(?: \w+ly)? ?(?:left |kept )?(?:unchanged|untouched|the same|as it was|as is|intact)\b",
        r"\bfurther (?:edits|revisions)\b|\b(?:this|the|my) (?:revision|edit|rewrite) "
        r"(?:keeps|preserves|helps|fixes|corrects|addresses|improves|makes|changes|replaces)\b",
        r"^\W*(?:this|the) (?:revised|edited|corrected|re-?written|reworded|rephrased|reworked) version (?:keeps|"
        r"preserves|fixes|"
        r"corrects|maintains|retains|addresses|now)\b",
        # Let me know if you'd like any further changes.
        rf"\b(?:if|whether) (?:you(?:'d| would)? (?:like|want|need|"
        rf"prefer)) (?:me to )?(?:make )?(?:any )?(?:\w+ ){{0,2}}"
        rf"(?:{_CHANGES}|revise|edit it|rework it)\b",
        # As in the reference, …   Based on the reference answer
        r"\b(?:as in|according to|as per|to match|matches|following|based on|consistent with|in line with|unlike|"
        r"closer to|"
        r"compared (?:to|with)|from) (?:the|your) (?:reference|draft)(?=[.,;:!)\n]|\Z| \w+(?:s|ed)\b)",
        r"\b(?:the|your) reference(?: text)? (?:says|states|notes|mentions|gives|uses|has|shows|explains|indicates)\b",
        # I have only changed the wording   I also fixed the grammar
        rf"{_I}(?:{_CHANGED}|{_MADE}) (?:only )?(?:the|your|this|some|a few|its|two|one) (?:\w+ )?(?:{_OURS}|text|"
        rf"wording|"
        r"phrasing|grammar|spelling|punctuation|typos?)\b",
        # the reference answer
        rf"\b(?:the|your) (?:reference|draft|preferred|{_EDITED}) {_OURS}\b",
        # Changes made: …   Edits: …   What I changed: …   Summary of the changes   Changelog   Edit notes
        rf"^\W*(?:(?:the|key|main|minor|summary of|list of|my) )*(?:edit|{_CHANGES})(?:(?: i)?(?: have)? made\b|\W*:)",
        # Key change: …   The only correction: …   Explanation of the edit: …   Reason for my change: …
        r"^\W*(?:(?:the|key|main|minor|only|single|my) )+(?:change|correction|revision|modification|fix)(?: made)?\W*:",
        r"^\W*(?:explanation|rationale|reasons?|justification|description) (?:of|for|behind) (?:the |my |this |these )?"
        r"(?:edit|change|revision|correction|modification|fix)(?:e?s)?\b",
        rf"^\W*(?:what i (?:changed|edited)|(?:summary|list|explanation|overview) of (?:the |my )?{_CHANGES})\b",
        r"^\W*what(?:'s| has| was)? (?:changed|new|different)\W*:",
        r"^\W*(?:change ?-?log|revision (?:notes?|history)|(?:edit|change|editor'?s?) (?:notes?|summary))\W*(?::|$)",
        # Note: I have replaced …   (I replaced the hammer with a pick.) is a matter of `_reports`
        rf"^\W*{_LABEL}\W{{0,5}}[^.\n]{{0,40}}{_I}(?:{_CHANGED}|{_MADE})\b",
        rf"^\W*{_LABEL}\W{{0,5}}[^.\n]{{0,60}}\b(?:was|were|has been|have been|is now) {_CHANGED}\b",
        # (Changed the hammer to a pick.)   Note: "hammer" was replaced with "pick".
        r"^[(\[*_]+(?:changed|replaced|swapped|corrected|substituted) [^)\]\n]{1,60} (?:to|with|for|by) [^)\]\n]{1,60}"
        r"[)\]*_]",
        # - Fixed the grammar   - Corrected the last step
        rf"^[\s\-*•\d.)(\[]*(?:{_CHANGED}|{_MADE}) (?:(?:the|some|a|two|of|minor|for|its|few|first|second|third|last|"
        rf"final|opening|closing|original) |"
        rf"\w+ and ){{0,3}}{_WORDING}\b",
        # [Edited for accuracy]
        rf"[(\[] ?(?:{_LABEL}\W+)?{_EDITED}(?: (?:for|to|so|with|from|text|version|draft)\b[^)\]\n]{{0,80}})? ?[)\]]",
        # The draft used …   Draft: …   A response may be about a draft, but then x, y_w or y_l speaks of it too.
        r"\b(?:the|your|original) draft\b(?! (?:law|bill|picks?|treaty|beer|lottery|order|board|of)\b)|^\W*draft\W*:",
        # End of revised text   [Revised text ends]
        rf"^\W*(?:end|start|begin(?:ning)?) of (?:the )?(?:{_EDITED} )?(?:draft|edit|revision|version|text)\W*$",
    )
)
# Of the first and the last line alone: [Edited by AI]   (edited)   Edit:   Edited   Reference: …
_HEAD = re.compile(
    r"^\W*better\W*:|"
    rf"^[\W_]*(?:reference|revision|rewrite|edit(?:ed)?|response)[*_]{{0,2}} ?:|"
    rf"^[(\[*_]+ ?(?:\w+ly )?{_EDITED}\b(?! (?:in )?\d)[^)\]\n]{{0,80}}[)\]*_]|"
    rf"^[(\[*_]*(?:edited|revised|corrected|final (?:draft|version)|(?:minor|small|minimal) {_CHANGES})\W*$"
)
_TAIL = re.compile(
    rf"^[(\[*_]+ ?(?:{_LABEL}\W+)?(?:\w+ly )?{_EDITED}\b(?! (?:in )?\d)[^)\]\n]{{0,80}}[)\]*_]{_SHUTS}$|"
    rf"^[(\[*_]+ ?(?:(?:minor|small|minimal|no) )?(?:edits?|revisions?|{_CHANGES})\b[^)\]\n]{{0,80}}[)\]*_]{_SHUTS}$|"
    r"^\W*edited by\b[^\n]{0,40}$|^\W*(?:correction|edit)\W*:"
)
# A remark of the editor's own: (I replaced …   I've corrected …   It has been changed …
_TO_CHANGE = (
    r"(?:(?:had|tried|needed|decided|wanted|chose) to "
    r"(?:revise|edit|rewrite|correct|fix|replace|change|adjust|rephrase|reword|improve)|touched|made (?:\w+ ){0,2}"
    rf"{_CHANGES})"
)
_REMARK = re.compile(rf"^({_OPENS})(?:{_LABEL}\W+)?[^.()\n]{{0,20}}?{_I}({_CHANGED}|{_MADE}|{_TO_CHANGE})\b")
_FIRST_PERSON = re.compile(r"\b(?:i|i'm|i've|i'd|i'll|my|me|mine|we|we've|we're|our|us)\b")
# What a change is said to have replaced, and by what.
_QUOTED = r"[\"“'‘«`*]+([^\"”'’»`*\n]{1,60})[\"”'’»`*]+"
_SAYS_WHAT = tuple(
    re.compile(pattern)
    for pattern in (
        rf"^{_OPENS}(?:\d+[.)] )?(?:{_LABEL}\W+)?(?:{_I})?(?:replaced|changed|swapped|corrected|exchanged|turned|"
        rf"updated|fixed|"
        r"replacing|swapping|correcting) (?P<old>.{1,80}?) (?:with|to|by|for|into|out for) (?P<new>.{1,80})",
        rf"^{_OPENS}(?:{_LABEL}\W+)?(?:{_I})?(?:used|wrote|put|substituted) (?P<new>.{{1,80}}?) "
        r"(?:instead of|in place of|for|rather than) (?P<old>.{1,80})",
        rf"^{_OPENS}(?:\d+[.)] )?(?P<old>[^\n]{{1,60}}?) (?:→|->|=>|⇒|➜) (?P<new>[^\n]{{1,60}})",
        rf"^{_OPENS}(?:{_LABEL}\W+)?(?:the )?(?:word |phrase )?(?P<old>{_QUOTED}) (?:was|is|has been|became|becomes|"
        rf"is now|→)"
        rf"[^\n]{{0,30}}?(?P<new>{_QUOTED})",
        rf"^(?:[(\[*_]+|{_LABEL}\W+)(?P<old>[^\n]{{1,60}}?) (?:became|is now|(?:was )?(?:replaced|changed|corrected|"
        rf"swapped) "
        r"(?:with|by|to|for)) (?P<new>[^\n]{1,60})",
        r"^\W*(?P<old>[^.\n]{1,40}?) (?:has been|was|were|have been|is now) (?:replaced|changed|swapped|corrected|"
        r"exchanged) "
        r"(?:with|by|to|for) (?P<new>[^\n]{1,60})",
    )
)
_ARROW = re.compile(r"→|->|=>|⇒|➜")
_EMPTY = {
    "a", "an", "the", "of", "in", "on", "to", "with", "and", "or", "for", "by", "it", "its", "is", "was", "be", "from",
}  # fmt: skip

# --- other languages: stems of "revised", nouns for a text, and remarks in the first person -------------------------

_STEMS = (
    r"überarbeitet|verbessert|korrigiert|bearbeitet|angepasst|geändert|umgeschrieben|umformuliert|berichtigt|redigiert|"
    r"révisée?|corrigée?|améliorée?|modifiée?|réécrite?|remaniée?|retravaillée?|reformulée?|mise? à jour|"
    r"revisad[oa]|corregid[oa]|mejorad[oa]|editad[oa]|modificad[oa]|reescrit[oa]|actualizad[oa]|"
    r"rivist[oa]|corrett[oa]|migliorat[oa]|modificat[oa]|riscritt[oa]|aggiornat[oa]|"
    r"corrigid[oa]|melhorad[oa]|atualizad[oa]|aprimorad[oa]|"
    r"herziene?|verbeterde?|bewerkte?|gecorrigeerde?|aangepaste?|herschreven|"
    r"reviderade?|förbättrade?|redigerade?|rättade?|korrigerade?|omskriv(?:en|na)|ændrede?|rettede?|forbedrede?|"
    r"poprawion[ayeo]|zredagowan[ayeo]|zmienion[ayeo]|ulepszon[ayeo]|upraven[áéý]|opraven[áéý]|vylepšen[áéý]|"
    r"исправленн|отредактированн|улучшенн|переработанн|изменённ|измененн|обновлённ|обновленн|доработанн|"
    r"виправлен|відредагован|покращен|düzeltilmiş|gözden geçirilmiş|düzenlenmiş|geliştirilmiş|revize edilmiş|"
    r"đã (?:được )?(?:sửa|chỉnh sửa|cải thiện|hiệu chỉnh)|direvisi|diperbaiki|disunting|"
    r"المعدل|المنقح|المحسن|المصحح|المراجع|संशोधित|संपादित|सुधार|διορθωμέν|αναθεωρημέν|βελτιωμέν"
)
_NOUNS = (
    r"fassung|version|versión|versione|versão|versie|text|texte|texto|testo|tekst|antwort|réponse|respuesta|risposta|"
    r"resposta|antwoord|svar|odpowied|odpověď|entwurf|brouillon|borrador|bozza|rascunho|concept|utkast|szkic|wersj|"
    r"verze|"
    r"ответ|верси|текст|вариант|черновик|відповід|верс|yanıt|cevap|sürüm|metin|taslak|bản|câu trả lời|văn bản|versi|"
    r"teks|jawaban|النص|الإجابة|الرد|النسخة|المسودة|उत्तर|पाठ|संस्करण|मसौदा|απάντηση|κείμενο|έκδοση|absatz|satz"
)
_FOREIGN = tuple(
    regex.compile(pattern, regex.MULTILINE)
    for pattern in (
        # Hier ist die überarbeitete Fassung:   Versión corregida:   Вот исправленный ответ:
        rf"^[^:\n.]{{0,60}}(?<!\w)(?:{_STEMS})\w*(?:\s+\w+)?\s+(?:{_NOUNS})\w*[^:\n.]{{0,20}}\s?(?::|$)",
        rf"^[^:\n.]{{0,60}}(?<!\w)(?:{_NOUNS})\w*(?:\s+\w+){{0,2}}\s+(?:{_STEMS})\w*[^:\n.]{{0,20}}\s?(?::|$)",
        rf"^\W*(?:voilà|voici|hier ist|aquí está|ecco|aqui está|hier is|вот)[^:\n.]{{0,40}}(?<!\w)(?:{_STEMS})",
        rf"^\W*(?:{_STEMS})\w{{0,2}}\W{{0,3}}:",
        rf"^[(\[*_]+(?:{_STEMS})\w{{0,2}}[)\]*_]",
        r"^\W*改[后後]的?(?:回答|答案|版本|文本)?\s?[:：]",
        r"^\W*(?:已|经过?|経)?(?:修改|修正|编辑|編集|更正|수정|편집|교정)(?:过|済み|됨|되었음)?\W*$",
        # 以下是修改后的回答：   修正後の文章：   수정된 답변:
        r"^.{0,16}(?:修改|修订|修訂|修正|改进|改進|改写|改寫|润色|潤色|编辑|編輯|更正|校对|优化|完善|改良)(?:后|後|过|過|版|好|之后|了)?"
        r"的?(?:回答|答案|版本|文本|草稿|内容|內容|文章|答复|段落|稿|句子|文字)?(?:如下)?\s?(?:[:：]|如下|$)",
        r"^.{0,16}(?:修正|改訂|編集|改善|書き直|校正|推敲|添削|訂正)(?:後|版|済み|した|された|し|を加えた|を行った)?の?"
        r"(?:文章|回答|答え|下書き|テキスト|バージョン|文|もの|版|内容)?(?:(?:は(?:以下|次)の(?:通り|とおり))?です)?\s?(?:[:：。]|$)",
        r"^.{0,20}(?:수정|개선|편집|교정|다듬|고친|개정)(?:된|한|본|은)?\s?(?:답변|버전|글|텍스트|초안|문장|내용|본)?"
        r"(?:입니다|은 다음과 같습니다)?\s?(?:[:：.]|$)",
        # Ich habe den Hammer durch eine Hacke ersetzt.   J'ai remplacé …   我把锤子改成了镐。
        r"(?<!\w)ich habe\b[^.\n]{0,120}\b(?:ersetzt|geändert|korrigiert|überarbeitet|angepasst|verbessert|"
        r"umformuliert)\b",
        r"(?<!\w)(?:j'ai|nous avons)(?: \w+)? (?:remplacé|modifié|corrigé|révisé|changé|amélioré|reformulé)\b",
        r"(?<!\w)(?:he|hemos) (?:reemplazado|cambiado|corregido|modificado|sustituido|revisado|mejorado)\b",
        r"(?<!\w)ho (?:sostituito|cambiato|corretto|modificato|rivisto|migliorato)\b",
        r"(?<!\w)(?:eu )?(?:substituí|troquei|corrigi|alterei|modifiquei|revisei)\b",
        r"(?<!\w)ik heb\b[^.\n]{0,120}\b(?:vervangen|gewijzigd|aangepast|verbeterd|gecorrigeerd|herzien)\b",
        r"(?<!\w)я (?:\w+ )?(?:заменил|изменил|исправил|отредактировал|переписал|улучшил)",
        r"我(?:已|已经|只|仅|只是)?(?:将|把|对)?[^。\n]{0,40}(?:替换|替換|改成|改为|改為|更正|修改了|修正了|换成)",
        r"[^。\n]{1,40}(?:を[^。\n]{1,30}(?:に|へ)(?:変更|修正|置き換え|訂正)|を(?:修正|訂正|編集))(?:し|い)?(?:まし)?た",
        r"[^.\n]{1,40}(?:을|를) [^.\n]{1,30}(?:로|으로) (?:수정|변경|교체|바꾸)\w*",
        r"(?:将|把|將)[^。\n]{1,30}(?:改为|改成|改為|替换|換成|换成|修正)|を[^。\n]{1,30}(?:に|へ)(?:変更|修正|訂正|置換)",
        r"^\W*(?:hinweis|anmerkung|nota|remarque|opmerking|примечание|uwaga|not)\s?:[^\n]{0,120}(?<!\w)(?:ersetzt|"
        r"geändert|"
        r"korrigiert|angepasst|cambi|reemplaz|sustitu|corrig|corregi|remplacé|modifi|sostitu|substitu|vervangen|"
        r"gewijzigd|"
        r"заменен|заменён|исправлен|изменен|изменён|zmienion|değiştirildi)",
        # Änderungen: …   Modifications : …   修改说明：   変更点：   변경 사항:
        r"^\W*(?:(?:vorgenommene|wichtigste) )?(?:änderungen|anmerkungen? zur überarbeitung)\W*:",
        r"^\W*(?:modifications|changements|corrections|cambios|correcciones|modificaciones|modifiche|correzioni|"
        r"alterações|"
        r"mudanças|correções|wijzigingen|aanpassingen|ändringar|zmiany|změny|изменения|правки|зміни|değişiklikler)"
        r"(?: (?:apportées?|effectuées?|realizad[oa]s|hech[oa]s|apportate|feitas|realizadas|doorgevoerd|"
        r"внесённые|внесенные|yapılan))?\s?:",
        r"^\W*(?:修改|修订|更正|改动|变更|編集|変更|修正)(?:说明|說明|内容|內容|之处|处|点|點|要点|记录|箇所|履歴)\s?[:：]",
        r"^\W*(?:변경|수정) ?(?:사항|내용|점)\s?[:：]",
    )
)
_ASKS_FOR_EDIT = re.compile(
    r"\b(?:re-?writ|re-?phras|re-?word|paraphras|revis|edit\b|edited\b|proof-?read|improv|polish|refin|rework|"
    r"shorten|condens|simplif|"
    r"expand|elaborat|tighten|summari[sz]|translat|convert|transform|adapt|adjust|grammar|typos?\b|spelling|punctuat|"
    r"(?:correct|fix|mend|update|modify|change|amend|enhance) (?:the|this|that|my|our|any|all|it|these|following)\b|"
    r"make (?:the|this|that|my|our|it|these|following)\b|better version|"
    r"more (?:formal|concise|professional|readable|polite)\b)|"
    r"(?<!\w)(?:korrigier|überarbeit|verbesser|corrig|réécri|réviser|amélior|corrige|reescrib|mejora|исправь|"
    r"отредактируй|"
    r"улучши|перепиши)|修改|改写|润色|修正|校对|書き直|添削|수정|교정"
)
# A sentence, or a label with its colon; closing quotes and brackets stay with it.
_SENTENCE = regex.compile(r"[^\n]+?(?:(?:[.!?…]+|:)[\"'”’)\]*_`»]*(?=\s|$)|[。！？：]+[」』）】”’]*|(?=\n|\Z))")
_LONGEST = 500  # characters of a line that are looked at
_WORD = regex.compile(r"[\p{L}\p{M}\p{N}]+")


def plain(text: str) -> str:
    """Normalise case, apostrophes and spaces of a text; lines stay lines."""
    text = text.casefold().replace("’", "'").replace("`", "'").replace("\r\n", "\n")
    return re.sub(r"[^\S\n]+", " ", text).strip()


@dataclass(frozen=True)
class Originals:
    """The texts that an edit is compared with, as `plain` gives them."""

    prompt: str  # x
    responses: str  # y_w and y_l
    base: str  # what the edit was made of
    other: str  # the other response
    asks_for_edit: bool  # whether x itself asks for a text to be edited, so that a response may well speak of that

    @classmethod
    def of(cls, prompt: str, chosen: str, rejected: str, base: str, open_task: bool) -> Originals:
        """Normalise the texts; of closed tasks none asks for an edit."""
        request = plain(prompt)
        asks = open_task and _ASKS_FOR_EDIT.search(request) is not None
        other = "" if base not in (chosen, rejected) else chosen if base == rejected else rejected
        return cls(request, plain(f"{chosen}\n{rejected}"), plain(base), plain(other), asks)


def talk_about_edit(text: str, originals: Originals, window: int) -> str | None:
    """Find the first thing that an edit says about itself, `plain`; None if there is none.

    Sentences within `window` characters of the start or the end are looked at, and as a whole.
    """
    normal = plain(text)
    pieces = [found for found in _SENTENCE.finditer(normal) if found[0].strip()] if window else []
    for place, piece in enumerate(pieces):
        near = piece.start() < window or piece.end() > len(normal) - window
        if not near or _stands(piece[0], originals):
            continue
        # what follows on the line belongs to a label or an opened bracket; only so much of it that no search takes long
        line = normal[piece.start() :].partition("\n")[0]
        parts = [line[:_LONGEST], *([piece[0][-window:]] if len(piece[0]) > _LONGEST else [])]
        ends = place == 0, not normal[piece.start() + len(line) :].strip()
        rest = f"{normal[: piece.start()]}\n{normal[piece.end() :]}"
        for phrase in (
            phrase for part in parts for phrase in _phrases(piece[0].strip(), part.strip(), ends, rest, originals)
        ):
            if _is_talk(phrase, originals):
                return phrase
    return None


def _stands(piece: str, originals: Originals) -> bool:
    """Return whether a sentence stands in the originals, punctuation at its ends aside."""
    core = piece.strip(" .!?:*_\"'()[]#-")
    return core in originals.responses or (len(core) > 20 and core in originals.prompt)


def _phrases(piece: str, line: str, ends: tuple[bool, bool], rest: str, originals: Originals) -> Iterator[str]:
    """List what a new sentence may say about the edit."""
    for pattern in _META:
        yield from (found[0].strip() for found in pattern.finditer(line))
    for foreign in _FOREIGN:
        if found := foreign.search(line):
            yield found[0].strip()
    for at_end, pattern in zip(ends, (_HEAD, _TAIL), strict=True):
        if at_end and (found := pattern.search(line)):
            yield found[0].strip()
    if _reports(piece, rest, originals):
        yield piece


def _is_talk(phrase: str, originals: Originals) -> bool:
    """Return whether a phrase is none of the originals' own: theirs in words, about their draft, or what x asks for."""
    if phrase in originals.responses or (len(phrase) > 8 and phrase in originals.prompt):
        return False
    if "draft" in phrase and "draft" in originals.responses + originals.prompt:
        return False
    own = set(re.findall(_OURS, phrase))
    return not originals.asks_for_edit or any(word not in originals.prompt for word in own)


def _reports(line: str, rest: str, originals: Originals) -> bool:
    """Return whether a line says what was changed: in the first person, which the originals don't use, or to the
    word."""
    if _names_change(line, rest, originals):
        return True
    remark = _REMARK.search(line)
    if remark is None or originals.asks_for_edit:
        return False
    bracketed, clear = bool(set("([*_") & set(remark[1])), not re.fullmatch(_MADE, remark[2])
    if _FIRST_PERSON.search(originals.responses):
        return bracketed and clear and re.search(_WORDING, line[remark.end() :]) is not None
    return bracketed or clear


def _names_change(line: str, rest: str, originals: Originals) -> bool:
    """Return whether a line names words that the edit took out of its base, and words that it put in."""
    arrows = len(_ARROW.findall(line))
    if arrows > 1 or (arrows and (len(line) > 100 or _ARROW.search(originals.responses))):
        return False
    base, other, edit = (set(_WORD.findall(text)) for text in (originals.base, originals.other, rest))
    for pattern in _SAYS_WHAT:
        if found := pattern.search(line):
            old, new = (set(_WORD.findall(found[name])) - _EMPTY for name in ("old", "new"))
            if (old & base) - other - edit and (new & edit) - base:
                return True
    return False


_FENCE = re.compile(r"(```+|~~~+)[^\n]*\n.*\n ?\1\s*", re.DOTALL)
_WRAPPERS = (
    re.compile(r"\"[^\"]+\"|“[^“”]+”|«[^«»]+»|„[^„“]+“|「[^「」]+」|'{3}.+'{3}|\"{3}.+\"{3}", re.DOTALL),
    re.compile(r"<(\w+)>.*</\1>", re.DOTALL),
    re.compile(r"\*\*[^*]+\*\*|__[^_]+__"),
    re.compile(r"(?:> ?[^\n]*(?:\n|\Z))+"),
    re.compile(
        r"\{\s*\"(?:\w+[_ ])?(?:revised|edited|answer|response|text|draft|edit|output|result)\w*\"\s*:.*\}", re.DOTALL
    ),
)


def wraps_all(text: str, prompt: str, responses: tuple[str, str], fence_only: bool = False) -> bool:
    """Return whether a code fence, quotation marks, bold type or a tag holds the whole of a text, unlike either
    response.
    """
    stripped = text.strip()
    if _FENCE.fullmatch(stripped):
        return not any(sign in known for known in (prompt, *responses) for sign in ("```", "~~~", "code block"))
    if fence_only:
        return False
    return any(
        wrapper.fullmatch(stripped) and not any(wrapper.fullmatch(known.strip()) for known in responses)
        for wrapper in _WRAPPERS
    )
