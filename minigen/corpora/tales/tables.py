"""The tables of the grammar that writes tales; `minigen.corpora.grammar` explains their form."""

from __future__ import annotations

from minigen.corpora.grammar import By, Grammar, parse_rules

# The fields of the first line, in its order, and the words that each can have. Each word has one
# role only, so that to follow the prompt is to repeat the one word of that role
# (test_a_word_of_the_first_line_has_one_role).
FIELDS = {
    field: tuple(rule)
    for field, rule in parse_rules("""
hero: Fox Bear Rabbit Hedgehog Mouse Badger Otter Squirrel Wolf Donkey Goat Pig Lamb Hare Camel
  Tiger
friend: Frog Toad Beaver Mole Turtle Pony Hamster Lizard Monkey Panda Weasel Parrot Duck Goose Owl
  Crab
place: forest meadow village valley garden orchard desert harbour market swamp castle jungle
object: lantern rope whistle ladder umbrella mirror blanket kettle
mood: merry sleepy silly spooky cosy proud dreamy grumpy
moral: patience kindness courage sharing honesty teamwork curiosity forgiveness
""").items()
    if not isinstance(rule, By)
}

# Like the fields of the first line, the sex of the hero is drawn once for each tale.
CAST = parse_rules("""
sex: he she
""")

# Short lists of words; each mention draws again.
LISTS = parse_rules("""
title by sex:
  he: Sir
  she: Lady
he by sex:
  he: he
  she: she
his by sex:
  he: his
  she: her
nick: Moonbeam Dumpling Thunder Biscuit Sunny Pepper Captain Noodle Lucky Snowball Whisper Twinkle
big: huge terrible awful gigantic dreadful scary wild angry
foe: giant dragon witch ghost bull troll goblin crocodile monster shark lion vampire
weather: frosty misty windy rainy chilly foggy snowy stormy cloudy breezy icy warm
day: morning evening night Monday Tuesday Wednesday Thursday Friday Saturday Sunday birthday holiday
trait: shy bossy clever clumsy polite nosy hungry gentle lazy eager old noisy tired brave rude quiet
doing: counting painting washing sorting hiding drawing burying selling mending finding eating
  throwing cleaning hugging stacking planting
things: pebbles buttons acorns feathers cups turnips candles marbles socks shells nuts ribbons
  spoons letters pillows hats
worn: mossy leaning broken haunted lonely muddy creaky painted narrow crooked empty dusty
spot: well gate fence bench stump fountain wall hedge tower barn cottage shed bridge chimney tree
  stable
tasty: sticky salty crispy spicy burnt juicy crunchy frozen sour sweet soft raw
foods: pancakes plums carrots cherries waffles pears pies berries tarts onions beans peas muffins
  rolls figs lemons
number: two three four five six seven eight nine ten eleven twelve thirteen
colour: red blue green yellow pink brown orange grey black white purple silver
clothes: scarf apron coat bonnet cloak jacket cap shawl helmet kilt gown sweater
relative: aunt uncle cousin granny grandpa brother sister nephew niece butler neighbour teacher
stranger: pirate baker wizard sailor postman princess clown plumber knight poet king tailor
moved: hopped hurried marched wandered trotted skipped strolled danced crept raced rolled swam
said: cried sighed sang shouted whispered giggled squeaked mumbled gasped growled laughed sniffed
how: softly loudly sadly gladly slowly kindly oddly proudly crossly gently wisely boldly
suddenly:
  Suddenly
  All at once
  Just then
  Before long
  Soon
  But then
""")

# The parts of a tale, one sentence each. A condition always comes after the same word: "Sir Fox",
# "little Owl", "faraway harbour", "magic kettle", "so merry", "about courage". So a small model
# learns within a minute to look back for a condition: after "magic", copy the word that followed
# "magic" before.
PARTS = parse_rules("""
opening:
  One {day}, {title} {hero} and little {friend} were {doing} {things} in the faraway {place}.
  Every {day} in the faraway {place}, {title} {hero} helped little {friend} with {doing} {things}.
  {Title} {hero} and little {friend} of the faraway {place} loved {doing} {colour} {things}.
  In the faraway {place}, behind {a worn} {spot}, lived {title} {hero} and little {friend}.
  Nobody in the faraway {place} had more {things} than {title} {hero} and little {friend}.
scene:
  In the faraway {place}, {title} {hero} and little {friend} met {number} {trait} children.
  All songs in the faraway {place} of {title} {hero} and little {friend} were about {moral}.
  It was {a weather} {day}, and {title} {hero} and little {friend} felt so {mood}.
meeting:
  "I feel so {mood}, {greeting}" {said} little {friend} to {title} {hero} {how}.
  "I feel so {mood}, {greeting}" {said} {title} {hero} to little {friend} {how}.
finding:
  Under {a worn} {spot}, {title} {hero} and little {friend} found {gift}.
  {A trait} {relative} sent {title} {hero} and little {friend} {gift}.
  {A trait} {stranger} sold {title} {hero} and little {friend} {gift}.
chat:
  "The magic {object} smells of {tasty} {foods}," {said} little {friend} to {title} {hero} {how}.
  "Hide the magic {object} in my {clothes}," {said} {title} {hero} to little {friend} {how}.
  {Title} {hero} and little {friend} {moved} on, so {mood} that they lost {number} {things}.
  On the road, {title} {hero} and little {friend} met {a trait} {stranger} singing about {moral}.
trouble:
  {Suddenly}, {a big} {foe} {moved} up to {title} {hero} and little {friend} by {a worn} {spot}.
  After {number} steps, {title} {hero} and little {friend} met {a big} {foe} in {a clothes}.
  {Suddenly}, {a big} {foe} wanted the magic {object} of {title} {hero} and little {friend}.
cry:
  "Now I do not feel so {mood}!" {said} little {friend} to {title} {hero} {how}.
  "It knows nothing about {moral}," {said} {title} {hero} to little {friend} {how}.
  "We need the magic {object}!" {said} {title} {hero} to little {friend} {how}.
solution:
  {Title} {hero} took the magic {object} and {solved}, and the poor thing {gave_up}.
  Little {friend} took the magic {object} and {solved}, and the poor thing {gave_up}.
thanks:
  "What {a trait} {stranger} {he} is!" {said} little {friend} of {title} {hero} {how}.
  "Now I feel so {mood} again," {said} little {friend} to {title} {hero} {how}.
  They gave the magic {object} {number} {tasty} {foods} in the faraway {place}.
ending:
  In the end, {title} {hero} and little {friend} were so {mood} that they {felt}.
  That {day}, all in the faraway {place} were so {mood} that they {felt}.
closing:
  And so, {title} {hero} and {his} little {friend} learned about {moral}: {lesson}.
  {A trait} {relative} told {title} {hero} and little {friend} about {moral}: {lesson}.
  "I know about {moral}," {said} little {friend} to {title} {hero} {how}, "{lesson}."
""")
# Each of these parts may be left out, so a tale has 7 to 11 sentences.
DETOURS = ("scene", "chat", "cry", "thanks")

# Phrases inside these sentences.
PHRASES = parse_rules("""
greeting:
  do you know a song about {moral}?
  where is the magic {object}?
  but I have lost {number} {colour} {things}!
  just like my {trait} {relative} in the faraway {place}!
  let us go {doing} {things}!
gift:
  a magic {object} called {nick} and a book about {moral}
  a magic {object} and {number} songs about {moral}
gave_up:
  {moved} away
  asked for {tasty} {foods}
  fell into {a worn} {spot}
solved by object:
  lantern: lit up {number} {things} | lit {a worn} {spot}
  rope: tied up {number} {things} | tied it to {a worn} {spot}
  whistle: blew it {number} times | blew at {a worn} {spot}
  ladder: climbed {number} steps | climbed {a worn} {spot}
  umbrella: opened it {number} times | opened it on {a worn} {spot}
  mirror: showed it {number} {things} | showed it {a worn} {spot}
  blanket: covered {number} {things} | covered {a worn} {spot}
  kettle: boiled {number} {things} | boiled tea on {a worn} {spot}
felt by mood:
  merry: danced around {a worn} {spot} | sang {number} songs
  sleepy: snored behind {a worn} {spot} | yawned {number} times
  silly: kissed {a worn} {spot} | wore {number} {things}
  spooky: hid behind {a worn} {spot} | saw {number} {colour} eyes
  cosy: sat down by {a worn} {spot} | drank {number} cups of tea
  proud: stood on top of {a worn} {spot} | bowed {number} times
  dreamy: gazed at {a worn} {spot} | counted {number} clouds
  grumpy: kicked {a worn} {spot} | slammed {number} doors
lesson by moral:
  patience: good {foods} take time | even {a trait} {stranger} can wait
  kindness: a kind word is worth {number} {things} | a smile is warmer than {a colour} {clothes}
  courage: fear is only a shadow on {a worn} {spot} | a hero may shake {number} times
  sharing: {tasty} {foods} taste better together | two can sit under {a colour} {clothes}
  honesty: one lie needs {number} more | the truth is better than {tasty} {foods}
  teamwork: many hands can lift {a worn} {spot} | two heads are better than {number} {things}
  curiosity: every {worn} {spot} has a secret | those who ask will find {colour} {things}
  forgiveness: anger is heavier than {a worn} {spot} | all deserve {number} chances
""")

FIRST_LINE = (
    "hero: {title} {hero}, friend: little {friend}, place: faraway {place},"
    " object: magic {object}, mood: so {mood}, moral: about {moral}"
)
GRAMMAR = Grammar(
    {
        **FIELDS,
        **CAST,
        **LISTS,
        **PARTS,
        **PHRASES,
        **{f"maybe_{part}": ("", f" {{{part}}}") for part in DETOURS},
        "first_line": (FIRST_LINE,),
        # A detour writes its own space.
        "tale": (
            "{first_line}\n"
            + "".join(f"{{maybe_{p}}}" if p in DETOURS else f" {{{p}}}" for p in PARTS).lstrip(),
        ),
    },
    remembered=[*FIELDS, *CAST],
    start="tale",
)
