"""Fixed word lists of the grounding check.

Words in these lists say nothing about an item, so a sentence may use them without evidence.
Every other word is a content word and must come from the events (architecture, Profiles). The
lists are English: a function word of another language counts as content, which makes the check
stricter there, never laxer. Liking may be told only of what was liked and disliking only of
what was disliked: "does not like lunch bags" must fail where lunch bags were bought.
"""

from __future__ import annotations

from typing import Final


def _listed(text: str) -> frozenset[str]:
    return frozenset(text.casefold().split())


FUNCTION_WORDS: Final = _listed("""
    a an the this that these those some any all both each every either other others another such
    and or but nor as so than then too very quite rather more most much many few several
    of in on at by to from for with about into over under between among across through during
    after before since until up out off per via plus
    i me my you your he him his she her hers it its they them their theirs we us our who whom
    whose which what when where why how there here
    is are was were be been being am has have had having do does did done doing can could may
    might must will would shall should
    also just only even still often always usually mostly mainly generally frequently regularly
    sometimes occasionally recently lately currently now today again once twice etc
    s d ll re ve
    item items product products thing things kind kinds type types sort sorts variety various
    range user users customer customers shopper person include includes including example
    stable current right
    """)

LIKING_WORDS: Final = _listed("""
    like likes liked liking love loves loved loving enjoy enjoys enjoyed enjoying prefer prefers
    preferred preference preferences favour favours favor favors favourite favourites favorite
    favorites buy buys buying bought purchase purchases purchased purchasing choose chooses chose
    chosen choosing pick picks picked order orders ordered want wants wanted look looks looking
    browse browses browsed browsing view views viewed click clicks clicked come comes coming back
    keep keeps interest interests interested taste tastes tend tends toward towards drawn fond
    """)

DISLIKING_WORDS: Final = _listed("""
    not no never don doesn didn t like avoid avoids avoided avoiding dislike dislikes disliked
    cancel cancels cancelled canceled cancelling hide hides hid hidden reject rejects rejected
    return returns returned sent send sends back rate rates rated low poorly
    """)

# Sizes, counts and packaging: they make poor themes for an extractive sentence.
PACKING_WORDS: Final = _listed("""
    set sets pack packs pair pairs piece pieces pcs count ct oz ounce ounces ml fl lb kg g cm mm
    size small medium large mini jumbo xl new assorted asstd design designs box boxed colour
    colours color colors style
    """)

# They describe an item but do not name one, so they may not stand alone as a theme.
COLOUR_WORDS: Final = _listed("""
    red white blue pink black green cream ivory yellow orange purple silver gold grey gray brown
    vintage retro antique classic traditional pretty cute little big round
    """)

# Negations. A word that stands only under one must not be claimed without it: "coffee without
# sugar" is no evidence of sugar. A negation written into its word ("zuckerfrei", "sugarless",
# "무설탕") needs no list, for that is another word. A missing one makes the check laxer, so they
# are of many languages.
WITHOUT_WORDS: Final = _listed("""
    without lacking lacks excluding excludes excl exkl except minus devoid zero sans ohne sin sem
    senza zonder utan uden uten ilman bez fără fara tanpa bila isento isenta exento exenta exempt
    dépourvu privo priva без безо χωρίς δίχως بدون بلا دون بغیر فاقد خالي خالية خال
    ללא בלי בלא נטול נטולת נטולי נטולות
    """)  # all that "and" joins to the next word: "without sugar and milk"
NOT_WORDS: Final = _listed("""
    no not non never neither nor isn aren wasn weren don doesn didn won cannot
    anti kein keine keinen keiner nicht pas não nao nie ne geen niet inte ej ikke nem tidak bukan
    không walang не ні нет нема немає لا ليس غير לא בלתי אינו नॉन नो गैर बिना ਬਿਨਾਂ
    """)  # the next word
AFTER_WORDS: Final = _listed("""
    free frei freie freien freier freies fri vrij libre nélkül mentes içermez içermeyen olmayan
    ilavesiz katkısız रहित विरहित मुक्त फ्री बिना बिनाको नहीं नसलेला नसलेली नसलेले ছাড়া মুক্ত বিহীন ਬਿਨਾਂ
    વગર વગરની વગરનું વગરનો વગરના વિના રહિત இல்லாத இல்லாமல் లేని లేకుండా రహిత ಇಲ್ಲದ ರಹಿತ
    ഇല്ലാത്ത രഹിത 없는 없이 없음 프리 무첨가
    """)  # the word before
ABBREVIATED_WORDS: Final = _listed("excl exkl")  # their dot ends nothing: "excl. batteries"
NONE_WORDS: Final = _listed("""
    none nil no not nein nee nej nei nie não non keine keiner keines ninguno ninguna nenhum nenhuma
    aucun aucune nessuno nessuna geen ingen inga intet brak žádný žádné нет немає yok 없음
    """)  # "sugar: none", "batteries: no": the word before
ZERO_WORDS: Final = _listed("zero cero null 제로")
# What a zero beside it is of, before or after: "sugar zero", "0 sugar", "슈가 제로". "Cola zero"
# is cola, and "type 0 fat tire" a fat tire.
MEASURED_WORDS: Final = _listed("""
    sugar sugars calorie calories carb carbs fat fats alcohol caffeine sodium salt gluten lactose
    cholesterol nicotine zucker kalorien fett alkohol koffein salz sucre sucres sel azúcar azúcares
    açúcar açúcares calorías calorias grasa gordura cafeína álcool alcol zucchero zuccheri caffeina
    suiker suikers vet sukker socker cukru сахар сахара 슈가 슈거 설탕 당 칼로리 카페인 알코올 알콜
    나트륨 니코틴
    """)
NUMBERED_WORDS: Final = _listed("""
    type size sizes model grade class level stage step phase series version number no nr mark gauge
    year day hour point ground patient absolute
    """)  # before a zero that is a number: "type 0", "size zero"
HYPHENATED_BEFORE: Final = _listed("un")  # "un-salted"
REMOVED_WORDS: Final = _listed("removed omitted excluded")  # "skin removed": the word before
PREFIX_WORDS: Final = _listed("non anti un")  # of one word, whatever else stands beside it
HYPHENATED_AFTER: Final = _listed("less")  # "sugar-less", but not "for less"
FROM_WORDS: Final = _listed("of from von fra van de da di от من")  # "free from nuts": the next
FREE_OTHERWISE: Final = _listed("""
    size sized sizes standing range shipping delivery gift gifts trade spirit style people run
    motion hand form sample samples
    """)  # "dress free size" is a dress
NEGATED_TOO: Final = _listed("""
    added extra artificial contain contains containing made addition zugesetzten zugesetzter
    zugesetztem zusatz toegevoegd toegevoegde tillsatt tillsatta tilsat tilsatte tilsatt lisättyä
    ajout ajouté ajoutés aucun aucune contient adición añadidos contiene adição adicionado contém
    aggiunta aggiunti adaos dodatku dodanego dodanych zawiera přidaného přidaných obsahuje
    tambahan mengandung thêm chứa hozzáadott tartalmaz προσθήκη πρόσθετη περιέχει
    добавления добавленного добавлений содержит додавання доданого містить
    إضافة اضافة يحتوي على תוספת מכיל अतिरिक्त मिलाए
    """)  # a negation reaches over them to the next word: "no added sugar", "sin adición de azúcar"
JOINING_WORDS: Final = _listed("and und et y e och og en i и та و")
CHOOSING_WORDS: Final = _listed("or nor oder ou o u of eller или або או أو")
MISSING_WORDS: Final = _listed("""
    included includes provided supplied required needed necessary
    added zugesetzt toegevoegd tilsat tilsatt ajouté ajoutés aggiunti aggiunto añadido añadidos
    adicionado adicionados
    """)  # "batteries not included": the word before
DETERMINERS: Final = _listed(
    "no kein keine keinen keiner geen walang"
)  # "no added": what comes next
# Never what something is without: "vegan and gluten-free", "without sugar & organic".
QUALITY_WORDS: Final = _listed("""
    vegan vegetarian organic natural kosher halal keto paleo raw bio fresh healthy gentle mild safe
    soft light lightweight durable washable reusable recyclable recycled biodegradable waterproof
    breathable adjustable foldable portable rechargeable handmade
    """)
LINKING_WORDS: Final = _listed("""
    is are के की का ਦੇ ਤੋਂ der die das dem den le la les el los las du des de di da il lo von من any the
    """)  # between a negation and its word
