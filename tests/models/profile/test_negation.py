from __future__ import annotations

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from models.profile import words
from models.profile.evidence import Evidence, section_events
from models.profile.grounding import grounded, telling
from models.profile.negation import marked
from models.schemas import Section
from models.text import claims, normal
from tests.models.profile_requests import event, request_of
from tests.models.scripts import UNSPACED, title_in

# Script → titles in which a word stands under a negation.
NEGATED_IN = {
    "Latin": (
        *("tea without {}", "no {} tea", "non-{} tea", "{}-free tea", "{} free tea", "tea w/o {}"),
        *("tea with no added {}", "not made of {}", "{} not included", "free from {}", "0% {}"),
        *("Tee ohne {}", "{}-freier Tee", "thé sans le {}", "té sin {}", "chá sem {}"),
        *("{}: none", "tea, {}: no", "{}: 0 g", "{}: not included", "{} not added", "tea excl. {}"),
        *("tè senza {}", "thee zonder {}", "te utan {}", "herbata bez {}", "trà không {}"),
    ),
    "Cyrillic": ("чай без {}", "не {}"),
    "Greek": ("τσάι χωρίς {}",),
    "Hebrew": ("תה ללא {}", "תה בלי {}"),
    "Arabic": ("شاي بدون {}", "شاي خالي من {}"),
    "Devanagari": ("चाय बिना {}", "{} के बिना चाय", "{} रहित चाय", "{} फ्री चाय"),
    "Bengali": ("{} ছাড়া চা",),
    "Tamil": ("{} இல்லாத தேநீர்",),
    "Telugu": ("{} లేని టీ",),
    "Hangul": ("{} 없는 차", "{} 프리 차"),
    "Han": (
        "無{}",
        "无{}",
        "不{}",
        "非{}",
        "未{}",
        "免{}",
        "不含{}",
        "{}なし",
        "{}抜き",
        "{}の入っていない",
    ),
    "Kana": ("無{}", "ノン{}"),
    "Thai": ("ชาไม่มี{}", "ชาไร้{}"),
    "Lao": ("ບໍ່ມີ{}",),
    "Khmer": ("គ្មាន{}",),
}


def bought(*texts: str) -> tuple[Evidence, ...]:
    entries = [event(n, text, 100 - n) for n, text in enumerate(texts)]
    return section_events(request_of(entries))[Section.STABLE]


def kept(statement: str, *texts: str) -> bool:
    return grounded(statement, Section.STABLE, bought(*texts)) is not None


@pytest.mark.parametrize(
    ("title", "false", "true"),
    [
        ("無塩バター", "塩バター", "バター"),
        ("无糖茶", "糖茶", "茶"),
        ("不織布マスク", "織布マスク", "不織布"),
        ("无BPA水杯", "BPA", "水杯"),
        ("零糖可乐", "糖可乐", "可乐"),
        ("ノンアルコールビール", "アルコールビール", "ビール"),
        ("グルテンフリーパン", "グルテンパン", "パン"),
        ("砂糖不使用ジャム", "砂糖", "ジャム"),
        ("Non-alcoholic beer", "Alcoholic beer", "Alcohol-free beer"),
        ("Coffee without sugar", "Coffee with sugar", "Sugar-free coffee"),
        ("Coffee without sugar or milk", "Coffee with milk", "Coffee without milk"),
        ("Coffee without sugar and milk", "Coffee and milk", "Coffee without sugar and milk"),
        ("Coffee without added sugar", "Coffee with sugar", "Coffee without sugar"),
        ("Sugar-free gum", "Sugar gum", "Gum without sugar"),
        ("Gluten and dairy free bar", "Gluten bar", "Dairy free bar"),
        ("Toy robot batteries are not included", "Batteries", "Toy robot"),
        ("Bar that doesn't contain nuts", "Nuts", "Bar"),
        ("Un-salted butter", "Salted butter", "Butter"),
        ("Shirt not cotton", "Cotton shirt", "Shirt"),
        ("0,0% alcohol beer", "Alcohol", "Beer"),
        ("Sugarless gum", "Sugar", "Gum"),
        ("Zuckerfreie Bonbons", "Zucker", "Bonbons"),
        ("무설탕 껌", "설탕", "껌"),
        ("제로 슈가 콜라", "슈가", "콜라"),
        ("カフェインレスコーヒー", "カフェイン", "コーヒー"),
        ("ノースリーブシャツ", "スリーブシャツ", "シャツ"),
        ("アルコール0.00%ビール", "アルコール", "ビール"),
        ("糖質0ビール", "糖質", "ビール"),
        ("電池別売ロボット", "電池", "ロボット"),
        ("卵は使用していません クッキー", "卵", "クッキー"),
        ("无添加蔗糖酸奶", "蔗糖", "酸奶"),
        ("0添加防腐剂酱油", "防腐剂", "酱油"),
        ("不使用色素果冻", "色素", "果冻"),
        ("没加糖的茶", "糖", "茶"),
        ("脱咖啡因咖啡", "咖啡因", "咖啡"),
        ("Suco sem adição de açúcar", "açúcar", "Suco"),
        ("Biscoito não contém glúten", "glúten", "Biscoito"),
        ("Zumo sin adición de azúcar", "azúcar", "Zumo"),
        ("Jus sans ajout de sucre", "sucre", "Jus"),
        ("Succo senza aggiunta di zucchero", "zucchero", "Succo"),
        ("Saft ohne Zusatz von Zucker", "Zucker", "Saft"),
        ("Sap zonder toegevoegde suikers", "suikers", "Sap"),
        ("Saft uten tilsatt sukker", "sukker", "Saft"),
        ("Sok bez dodatku cukru", "cukru", "Sok"),
        ("Сок без добавления сахара", "сахара", "Сок"),
        ("Печенье не содержит глютен", "глютен", "Печенье"),
        ("Nước ép không thêm đường", "đường", "Nước ép"),
        ("Şeker içermeyen meyve suyu", "Şeker", "meyve suyu"),
        ("عصير بدون إضافة سكر", "سكر", "عصير"),
        ("מיץ ללא תוספת סוכר", "סוכר", "מיץ"),
        ("קפה נטול קפאין", "קפאין", "קפה"),
        ("बिना अतिरिक्त चीनी की चाय", "चीनी", "चाय"),
        ("ખાંડ વગરની ચા", "ખાંડ", "ચા"),
        ("Tea 0 sugar", "Sugar", "Tea"),
        ("Tea with 0g sugar", "Sugar", "Tea"),
        ("Soda 0 calories", "Calories", "Soda"),
        ("Tea w/out sugar", "Sugar", "Tea"),
        ("No sugar/milk tea", "Milk", "Tea"),
        ("Nut & dairy-free bar", "Nut", "Bar"),
        ("Toy, batteries sold separately", "Batteries", "Toy"),
        ("Tea (sugar: none)", "Sugar", "Tea without sugar"),
        ("Tea, preservatives: nil", "Preservatives", "Tea"),
        ("Toy robot; batteries: no", "Batteries", "Toy robot"),
        ("Toy robot. Not included: batteries", "Batteries", "Toy robot"),
        ("Toy robot, batteries aren't included", "Batteries", "Toy robot"),
        ("Salz: keine", "Salz", "ohne Salz"),
        ("Tea, sugar none", "Sugar", "Tea"),
        ("Tea, sugar: 0 g", "Sugar", "Tea"),
        ("Alcohol 0% beer", "Alcohol", "Beer"),
        ("Sugar zero cola", "Sugar", "Cola"),
        ("Tea with 0 grams of sugar", "Sugar", "Tea"),
        ("Sugar not added juice", "Sugar", "Juice"),
        ("Compote de pommes, sucre non ajouté", "sucre", "pommes"),
        ("Lamp excl. bulb", "Bulb", "Lamp"),
        ("Lampe exkl. Leuchtmittel", "Leuchtmittel", "Lampe"),
        ("Toy robot, batteries excl.", "Batteries", "Toy robot"),
        ("Almonds, skin removed", "Skin", "Almonds"),
        ("슈가 제로 콜라", "슈가", "콜라"),
        ("칼로리: 제로 사이다", "칼로리", "사이다"),
        ("去皮花生", "皮花生", "花生"),
        ("去除骨头的鱼", "骨头", "的鱼"),
        ("砂糖：なし ジャム", "砂糖", "ジャム"),
        ("糖：无 茶", "糖", "茶"),
    ],
)
def test_a_statement_that_drops_a_negation_is_rejected(title: str, false: str, true: str) -> None:
    assert not kept(false, title)
    assert kept(true, title)
    assert kept(title, title)
    assert kept(false, title, false)  # another event has it


@pytest.mark.parametrize(
    ("title", "statement"),
    [
        ("No. 5 candle", "5 candle"),
        ("Non stick frying pan", "frying pan"),
        ("Cotton kurti free size", "cotton kurti"),
        ("Free range eggs", "eggs"),
        ("Buy one get one free socks", "socks"),
        ("100% cotton", "cotton"),
        ("10% fat milk", "fat milk"),
        ("メンズフリースジャケット", "メンズ"),
        ("ワンピースドレス", "ワンピース"),
        ("おはなし絵本", "おはなし"),
        ("不锈钢锅", "钢锅"),
        ("是非曲直", "是非"),
        ("لا إله", "لا"),
        ("2020年カレンダー", "年カレンダー"),
        ("令和10年カレンダー", "年カレンダー"),
        ("レースネックレス", "レースネックレス"),
        ("レースドレス", "レース"),
        ("ハードカバーノート", "カバーノート"),
        ("無添加石鹸", "石鹸"),
        ("零添加酱油", "酱油"),
        ("노란 슈가 볼", "슈가"),
        ("Size 0 dress", "dress"),
        ("0.5 g sugar sachets", "sugar sachets"),
        ("Off-white/cream rug", "cream rug"),
        ("Type 0 fat tire", "fat tire"),
        ("No. 0 fat brush", "fat brush"),
        ("Size zero dress", "dress"),
        ("Sugar 0.5 g tea", "sugar tea"),
        ("Candle: No. 5", "candle"),
        ("Tea, sugar: no 5 spoons", "sugar"),
        ("Cola zero", "cola"),
        ("콜라 제로", "콜라"),
        ("Mug: free gift", "mug"),
        ("サイズ：フリー", "サイズ"),
        ("Non-slip/washable mat", "washable mat"),
        ("Anti slip/absorbent mat", "absorbent mat"),
        ("Vegan & gluten-free bar", "vegan bar"),
        ("Vegan/gluten-free bar", "vegan bar"),
        ("Coffee without sugar & organic", "organic coffee"),
        ("Low fat 0% sugar yoghurt", "fat yoghurt"),
        ("去年日历", "年日历"),
        ("去头皮屑洗发水", "头皮屑"),
    ],
)
def test_what_only_looks_like_a_negation_takes_nothing_away(title: str, statement: str) -> None:
    assert kept(statement, title)


def test_a_negation_that_the_title_does_not_have_is_rejected() -> None:
    assert not kept("coffee without sugar", "Coffee with sugar")
    assert not kept("sugar-free gum", "Sugar gum")
    assert not kept("無塩バター", "塩バター")


def test_a_dislike_is_not_taken_for_a_negation_nor_a_negation_for_a_dislike() -> None:
    def avoided(statement: str, title: str) -> bool:
        return grounded(statement, Section.AVOIDS, bought(title)) is not None

    assert avoided("does not like cola", "Cola")
    assert avoided("no sugar cola", "No sugar cola")
    assert not avoided("sugar cola", "No sugar cola")


@given(st.data(), st.sampled_from(sorted(NEGATED_IN)))
def test_under_a_negation_everywhere_a_word_is_no_evidence_without_it(data, script: str) -> None:
    word = data.draw(title_in(script).filter(bool))[0]
    other = data.draw(title_in(script))
    assume(all(telling(part) for part in claims(word)))
    gap = "" if script in UNSPACED else " "
    plain = [word, gap.join([*other, word])]
    negated = [form.format(word) for form in NEGATED_IN[script]]
    assert kept(word, *negated, *plain)
    assert not kept(word, *negated)
    for title in negated:
        assert kept(title, title)
        assert not kept(title, *plain)


@given(st.text())
def test_marking_adds_marks_and_takes_negating_words_out_but_changes_no_word(text: str) -> None:
    before = normal(text).replace("~", " ")
    after = marked(text).replace("~", "")
    assert len(after) == len(before)
    assert all(new in (old, " ") for old, new in zip(before, after, strict=True))


def test_the_lists_are_spelt_as_texts_are_read() -> None:
    names = ("WITHOUT", "NOT", "AFTER", "MISSING", "NEGATED", "LINKING", "CHOOSING", "NONE")
    for name in (*names, "ZERO", "MEASURED", "NUMBERED", "QUALITY", "ABBREVIATED", "PREFIX"):
        listed = vars(words)[f"{name}_TOO" if name == "NEGATED" else f"{name}_WORDS"]
        assert {normal(word) for word in listed} == listed
