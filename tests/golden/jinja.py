"""Some hundred small templates, and what jinja2 makes of them in the environment of transformers."""

from jinja2.exceptions import TemplateError
from transformers.utils.chat_template_utils import _compile_jinja_template

from common import DATA, write_json

VARIABLES = {
    "messages": [
        {"role": "system", "content": " Be brief. "},
        {"role": "user", "content": "Hello <there> & 'you'\n"},
        {"role": "assistant", "content": [{"type": "text", "text": "Hi"}, {"type": "image"}]},
    ],
    "tools": None,
    "documents": None,
    "add_generation_prompt": True,
    "bos_token": "<s>",
    "n": 42,
    "f": 3.5,
    "s": "The quick  brown-fox\tjumps",
    "empty": "",
    "words": ["pear", "Apple", "fig", "apple", "Kiwi"],
    "numbers": [3, 1, 2, 10, -4],
    "nested": [[1, 2], [3, [4, 5]], []],
    "d": {"b": 1, "a": {"x": [1, None, True]}, "c": "three"},
    "people": [
        {"name": "Ann", "age": 30, "home": {"town": "Ulm"}},
        {"name": "bob", "age": 25, "home": {"town": "Bonn"}},
        {"name": "Cid", "age": 30, "home": {"town": "Ulm"}},
    ],
    "uni": "Größe ÀÉ 漢字 😀 ΑΣ ß",
    "yes": True,
}

EXPRESSIONS = """
1 + 2 * 3
7 // 2
-7 // 2
7 % 3
-7 % 3
7 % -3
2 ** 10
2 ** -1
2 ** 3 ** 2
-2 ** 2
7 / 2
6 / 2
7.5 // 2
-7.5 % 2
1e16
1e15
1e-4
1e-5
0.1 + 0.2
100000.0
1.5e300 * 1e10
3 * 'ab'
'ab' * 2
[1, 2] * 2
[1] + [2, 3]
(1, 2) + (3,)
'a' + 'b'
'a' ~ 1 ~ none ~ true ~ 2.0
1 ~ missing ~ 2
true + 1
not 1
not missing
1 and 2
0 or 'x'
none or ''
1 if yes else 2
1 if not yes
(1 if not yes) is undefined
1 < 2 < 3
1 < 2 > 3
1 == 1.0
1 == true
'a' < 'b'
[1, 2] < [1, 3]
(1, 2) == [1, 2]
none == missing
none is none
'a' in 'cat'
'x' not in 'cat'
2 in [1, 2]
'b' in d
'z' in d
1 in missing
'role' in messages[0]
none in [none]
n is divisibleby 7
n is even
n is odd
n is integer
f is integer
f is float
f is number
yes is number
yes is boolean
yes is integer
'1' is number
s is string
d is mapping
words is mapping
words is iterable
n is iterable
none is iterable
tools is iterable
tools is iterable and tools | length > 0
missing is iterable
missing is sequence
missing is callable
missing is defined
missing.x is defined
'x' is sequence
{} is sequence
[] is sequence
(1, 2) is sequence
n is sequence
none is sequence
range(3) is sequence
range(3) is iterable
words | map('upper') is iterable
words | map('upper') is sequence
range is callable
s.upper is callable
n is callable
'abc' is lower
'ABC' is upper
'aBc' is lower
'123' is lower
n is eq 42
n is equalto(42)
n is ne 1
n is gt 41
n is greaterthan(50)
n is le 42
n is lessthan 1
n is in [42]
'a' is in 'abc'
n is sameas 42
true is true
1 is true
false is false
none is false
'upper' is filter
'nope' is filter
'even' is test
'x' is escaped
n is not none
messages is defined and messages
s | upper
s | lower
s | title
s | capitalize
uni | upper
uni | lower
uni | title
uni | capitalize
uni.title()
uni.swapcase()
uni.casefold()
uni | length
uni[::-1]
uni[2:5]
uni[-3:]
uni[100:]
s[4]
s[-1]
s[99]
s[1:10:3]
s[::-2]
'  x '| trim
'xxaxx' | trim('x')
' a b ' .strip()
'xxabxx'.lstrip('x')
'xxabxx'.rstrip('x')
'abcba'.strip('ab')
s.split()
s.split(' ')
s.split(' ', 1)
s.split(none, 1)
s.rsplit(' ', 1)
'  a b  c '.rsplit(none, 1)
'  a b  c '.split(none, 1)
'  a b  c '.split()
'a,b,,c'.split(',')
'a,b,,c'.rsplit(',', 2)
'a\\nb\\r\\nc\\x0bd'.splitlines()
'a\\nb\\n'.splitlines(true)
''.split()
''.split(',')
'a=b=c'.partition('=')
'a=b=c'.rpartition('=')
'abc'.partition('x')
'abc'.rpartition('x')
'abcabc'.index('c')
'abcabc'.rindex('c')
'abcabc'.find('z')
'abcabc'.find('b', 2)
'abcabc'.rfind('b', 0, 3)
'größe'.find('e')
'abcabc'.count('bc')
'aaa'.count('')
'abc'.index('z')
'7'.zfill(3)
'-7'.zfill(4)
'+7'.zfill(2)
'ab'.center(7)
'ab'.center(6, '*')
'abc'.center(6, '*')
'ab'.ljust(5, '.')
'ab'.rjust(5)
'ab'.rjust(5, 'xy')
'aBc'.swapcase()
'a\\tb\\tcc\\td'.expandtabs()
'a\\tb\\tcc\\td'.expandtabs(4)
'ab'.encode()
'é'.encode('utf-8')
'é'.encode() | length
'ab'.encode().decode()
"it's a title".title()
"it's a title" | title
'hello-world (foo) <bar>' | title
'x'.join(['a', 'b'])
', '.join(d)
''.join([1])
'abc'.startswith('ab')
'abc'.startswith(('x', 'a'))
'abc'.endswith('bc')
'abc'.startswith('b', 1)
'abc'.removeprefix('a')
'abc'.removesuffix('bc')
'aaa'.replace('a', 'b')
'aaa'.replace('a', 'b', 2)
'abc'.replace('', '-')
'abc' | replace('b', 'X')
'aaa' | replace('a', 'b', 1)
'a1'.isalnum()
'ab'.isalpha()
'12'.isdigit()
'12'.isdecimal()
'½'.isnumeric()
'²'.isdigit()
' \\t'.isspace()
''.isspace()
'ab'.islower()
'AB'.isupper()
'Ab Cd'.istitle()
'Ab cd'.istitle()
'a_1'.isidentifier()
'1a'.isidentifier()
'ab'.isascii()
'é'.isascii()
'a\\n'.isprintable()
'%d. %s: ' % (1, 'user')
'%s' % n
'%s' % none
'%s and %s' % ('a', 'b')
'%s' % [1, 'a']
'%s' % {'a': 1}
'%r' % 'a'
'%(b)s-%(c)s' % d
'%5d|%-5d|%05d|%+d|% d' % (1, 2, 3, 4, 5)
'%x %X %o %#x %#o' % (255, 255, 8, 255, 8)
'%5.2f|%e|%g|%G' % (3.14159, 12345.678, 0.00001, 1e20)
'%.3s|%10s|%-10s|' % ('abcdef', 'x', 'y')
'%c%c' % (65, 'b')
'%%' % ()
'%d%%' % 5
'%d' % 3.9
'%i' % true
'%*d' % (5, 42)
'%.*f' % (2, 3.14159)
'%s %s' % 'a'
'%s' % ('a', 'b')
'%d' % 'x'
'abc' % 'x'
'abc' % d
'%' % 1
'%q' % 1
'%a' % 'é'
'%.2f' % n
'%08.3f' % -3.14159
'%g' % 100000
'%g' % 1000000
'%.3g' % 0.00012345
'{} {}'.format('a', 1)
'{1} {0}'.format('a', 'b')
'{x} {y!r}'.format(x=1, y='b')
'{0.name}'.format(people[0])
'{0[name]}'.format(people[0])
'{0[1]}'.format(words)
'{:>5}|{:<5}|{:^5}|'.format('a', 'b', 'c')
'{:*^7}'.format('ab')
'{:05d}|{:+d}|{: d}'.format(42, 42, 42)
'{:,}|{:_}'.format(1234567, 1234567)
'{:x}|{:#x}|{:b}|{:o}|{:c}'.format(255, 255, 5, 8, 65)
'{:.2f}|{:10.3f}|{:e}|{:g}|{:%}'.format(3.14159, 2.5, 12345.678, 0.0001, 0.25)
'{:.3}'.format('abcdef')
'{:{w}}|'.format('a', w=5)
'{{}}'.format()
'{}'.format(none)
'{}'.format([1, 'a'])
'{!r}'.format('a')
'{!a}'.format('é')
'{:d}'.format('x')
'{'.format()
'{0}'.format()
'{x}'.format()
'{:.2}'.format(3.14159)
'{:,.2f}'.format(1234567.891)
'{:010,}'.format(1234)
'{:>+8.1f}'.format(2.25)
'{:s}'.format('a')
'{:5}'.format(true)
'{:d}'.format(true)
'{x}'.format_map({'x': 1})
'%s, %s' | format('a', 'b')
'%(x)s' | format(x=1)
'%.1f' | format(2.25)
d
words
nested
(1,)
()
{}
{'a': none, 1: true, 2.5: 'x'}
{1: 'a', true: 'b'}
{'a': 1, 'a': 2}
"it's"
["it's", 'say "hi"', 'both \\' "']
['\\n', '\\t', '\\x00', 'é', '\\u200b', '\\xa0']
[1.0, 1e20, 1e-7, -0.0]
range(3)
range(1, 10, 3)
range(3) | list
range(10)[2:5]
range(10)[::-1] | list
range(5, 0, -2) | list
range(3) | length
range(0)  | list
d.items()
d.keys()
d.values()
d.items() | list
d.keys() | list | length
d.get('b')
d.get('z')
d.get('z', 'dflt')
d.get('z') is none
d['b']
d.c
d['c']
d.items is callable
d.nope
d.nope.deeper
d.copy()
dict(a=1, b=2)
dict([('a', 1)])
dict({'a': 1}, b=2)
dict.fromkeys(['a'], 1)
words.index('fig')
words.index('none')
words.count('fig')
words.copy()
words.append('x')
d.update({'x': 1})
d.pop('b')
(1, 2).index(2)
words | first
words | last
[] | first
[] | last
'abc' | first
words | length
words | count
n | length
none | length
words | join(', ')
words | join
numbers | join('-')
people | join(', ', attribute='name')
d | join('+')
words | sort
words | sort(case_sensitive=true)
words | sort(reverse=true)
numbers | sort
people | sort(attribute='age') | map(attribute='name') | list
people | sort(attribute='age,name') | map(attribute='name') | list
people | sort(attribute='home.town', reverse=true) | map(attribute='name') | list
[1, 'a'] | sort
words | unique | list
words | unique(case_sensitive=true) | list
people | unique(attribute='age') | map(attribute='name') | list
words | reverse | list
'abc' | reverse
numbers | sum
people | sum(attribute='age')
numbers | sum(start=100)
[] | sum
numbers | max
numbers | min
words | max
words | min(case_sensitive=true)
people | max(attribute='age')
[] | max
words | map('upper') | list
words | map('replace', 'p', 'b') | list
people | map(attribute='name') | list
people | map(attribute='nope', default='?') | list
people | map(attribute='home.town') | join(',')
nested | map('length') | list
nested | map(attribute=0) | list
numbers | select('gt', 2) | list
numbers | select | list
numbers | reject('odd') | list
people | selectattr('age', 'equalto', 30) | map(attribute='name') | list
people | selectattr('age', '==', 25) | list | length
people | rejectattr('nope') | list | length
people | selectattr('home.town', 'in', ['Ulm']) | map(attribute='name') | list
words | select('string') | list | length
people | groupby('age')
people | groupby('age') | map(attribute='grouper') | list
people | groupby('home.town') | map('first') | list
people | groupby('nope', default='none') | length
numbers | batch(2) | list
numbers | batch(2, 'x') | list
numbers | slice(2) | list
numbers | slice(3, 'x') | list
d | dictsort
d | items | list
{'b': 1, 'A': 2} | dictsort
{'b': 1, 'A': 2} | dictsort(true)
{'b': 2, 'A': 1} | dictsort(false, 'value')
{'b': 2, 'A': 1} | dictsort(reverse=true)
none | default('x')
none | default('x', true)
missing | default('x')
missing | d('x')
'' | default('x')
'' | default('x', boolean=true)
missing | default
'-5' | int
'x' | int
'x' | int(7)
'3.9' | int
3.9 | int
'ff' | int(base=16)
'0x1f' | int(0, 16)
'0b11' | int(0, 2)
true | int
none | int
'1_000' | int
'3.5' | float
'x' | float
'x' | float(1.5)
'1e3' | float
'inf' | float
3 | float
2.5 | round
3.5 | round
2.567 | round(2)
2.5 | round(0, 'ceil')
2.5 | round(0, 'floor')
2.675 | round(2)
42 | round
1234 | round(-2)
1234.5 | round(-2)
-5 | abs
-5.5 | abs
'x' | abs
[1, 2] | string
none | string
1.0 | string
s | wordcount
"it's a-b c_d" | wordcount
'' | wordcount
'The quick brown fox jumps over the lazy dog' | wordwrap(10)
'The quick brown fox jumps over the lazy dog' | wordwrap(10, wrapstring='|')
'aaaaaaaaaaaaaaa bb' | wordwrap(5)
'aaaaaaaaaaaaaaa bb' | wordwrap(5, false)
'well-known mother-in-law thing' | wordwrap(8)
'well-known mother-in-law thing' | wordwrap(8, break_on_hyphens=false)
'one two\\n\\nthree four five' | wordwrap(8)
'  lead and   gaps  ' | wordwrap(6)
'a\\nb\\n' | indent
'a\\nb\\n\\nc' | indent(2)
'a\\nb' | indent(2, true)
'a\\n\\nb' | indent(2, blank=true)
'a\\nb' | indent('> ')
'a\\nb' | indent(width=1, first=true)
'' | indent
'a\\n' | indent(2, true, true)
'The quick brown fox' | truncate(10)
'The quick brown fox' | truncate(10, true)
'The quick brown fox' | truncate(10, false, '!')
'The quick brown fox' | truncate(15)
'The quick brown fox' | truncate(5, true, '', 0)
'ab' | center(6)
'<a href="x">' | e
"it's" | escape
'<b>x</b>' | forceescape
'<b>x</b>' | safe
'<b>x  y</b><!-- c --> z' | striptags
'a < b' | striptags
'a b&c/ü' | urlencode
{'a b': 'c/d', 'e': 1} | urlencode
[('a', 1)] | urlencode
0 | filesizeformat
1 | filesizeformat
999 | filesizeformat
1000 | filesizeformat
1234567 | filesizeformat
1024 | filesizeformat(true)
d | tojson
d | tojson(indent=2)
{'b': [], 'a': {}} | tojson(indent=2)
{'b': 1, 'a': 2} | tojson(sort_keys=true)
'é<>&\\'"\\n' | tojson
'é😀' | tojson(ensure_ascii=true)
[1, 2.0, none, true, 'x'] | tojson(separators=(',', ':'))
[1, [2]] | tojson(indent=0)
{1: 'a', none: 'b', true: 'c'} | tojson
missing | tojson
(1, 2) | tojson
1e20 | tojson
messages | tojson
messages[2] | tojson(indent=4)
d | attr('items') is callable
people[0] | attr('name') is defined
words | pprint
messages[0].role
messages[0]['role']
messages[-1].content[0].text
messages[9] is defined
messages[:1] | length
messages[1:] | map(attribute='role') | list
messages[1:][0].role
messages.0.role
messages | map(attribute='content') | select('string') | list | length
messages | selectattr('role', 'equalto', 'user') | first
n.real
f.is_integer()
n.bit_length()
n()
missing()
missing.x
missing + 1
missing == missing
missing ~ 'x'
missing | upper
missing | length
missing | list
missing | join
-missing
none + 1
'a' + 1
1 + 'a'
[1] + 'a'
1 - 'a'
'a' - 'b'
1 / 0
1 // 0
1 % 0
1.0 / 0
none.x
none['x']
n.x
n[0]
words['x']
words[none]
d[[1]]
'a' < 1
1 < none
1 in 5
1 in 'a'
words | nope
n is nope
'a' 'b'
'\\x41\\u00e9\\U0001f600\\101\\q\\/'
0x1f + 0b11 + 0o17
1_000
.5 is defined
5.real
[1, 2,]
(1, 2,)
{'a': 1,}
[[1, 2], [3]][0][1]
{'a': {'b': 'c'}}.a.b
namespace(a=1).a
namespace(a=1).b is defined
namespace({'a': 2}).a
cycler('a', 'b').next()
joiner('|')()
raise_exception('stop: ' ~ n)
range(200000)
'abc' | upper | lower | title
'a' is string and 'b' is string
not 'a' is string
n | string | length
(n | string).zfill(5)
n|string + 'x'
-n | abs
- 5
+5
1 -1
[-1, - 2]
'x' if missing is defined else 'y'
'x' if n == 42 and words | length == 5 else 'y'
'a' if false else 'b' if false else 'c'
words[n - 41]
words[n % 5]
words[1:3]
words[:-1] | join
words[::2]
d.a.x[2]
d['a']['x'][1] is none
d.a.x | reject('none') | list
(words | join(',')).split(',')[1]
'%s' % (words,)
'%s' % d.a
bos_token + 'x'
s | replace(' ', '') | length
'a' * 0
'a' * -1
[none, true, 1.5]
true | string
[true, false] | map('string') | list
[1, 2, 3] | map('string') | join('+')
[3, 1] | sort | first
words | list | last
'x' ~ ('a' if yes else 'b') ~ 'z'
2 * 3 ~ 4
1 + 2 ~ 3
'a' ~ 'b' == 'ab'
'a' in ['a'] == true
words is string or d is mapping
lipsum is defined
self is defined
loop is defined
caller is defined
varargs is defined
""".strip("\n").split("\n")

BLOCKS = [
    "{% for x in none %}{{ x }}{% endfor %}",
    "{% for x in missing %}{{ x }}{% else %}none{% endfor %}",
    "{% for x in 5 %}{% endfor %}",
    "{% for c in 'abc' %}[{{ c }}]{% endfor %}",
    "{% for k in d %}{{ k }},{% endfor %}",
    "{% for k, v in d.items() %}{{ k }}={{ v }};{% endfor %}",
    "{% for k, v in d %}{{ k }}{% endfor %}",
    "{% for a, b in [(1, 2), (3, 4)] %}{{ a }}{{ b }}{% endfor %}",
    "{% for a, (b, c) in [(1, (2, 3))] %}{{ a }}{{ b }}{{ c }}{% endfor %}",
    "{% for m in messages if m.role != 'system' %}{{ loop.index }}/{{ loop.length }} {{ m.role }} {% endfor %}",
    "{% for m in messages if m.role == 'x' %}a{% else %}empty{% endfor %}",
    "{% for m in messages %}{{ loop.index0 }}{{ loop.revindex }}{{ loop.revindex0 }}{{ loop.first }}{{ loop.last }}{% endfor %}",
    "{% for m in messages %}{{ loop.previtem.role if loop.previtem is defined }}>{{ loop.nextitem.role if loop.nextitem is defined }} {% endfor %}",
    "{% for x in [1, 1, 2] %}{{ loop.changed(x) }}{{ loop.cycle('a', 'b') }}{% endfor %}",
    "{% for x in nested recursive %}{% if x is iterable %}({{ loop(x) }}){% else %}{{ x }}@{{ loop.depth }}{% endif %}{% endfor %}",
    "{% for x in [1, 2] %}{{ loop(x) }}{% endfor %}",
    "{% for x in range(5) %}{% if x == 3 %}{% break %}{% endif %}{% if x == 1 %}{% continue %}{% endif %}{{ x }}{% endfor %}",
    "{% for x in [1, 2] %}{% for y in [3, 4] %}{% if y == 4 %}{% break %}{% endif %}{{ x }}{{ y }} {% endfor %}{% endfor %}",
    "{% for x in [1, 2] %}{% set y = x %}{% endfor %}{{ y is defined }}",
    "{% set y = 0 %}{% for x in [1, 2] %}{{ y }}{% set y = x %}{{ y }}{% endfor %}{{ y }}",
    "{% if true %}{% set y = 1 %}{% endif %}{{ y }}",
    "{% set ns = namespace(x=0, y=none) %}{% for i in range(4) %}{% set ns.x = ns.x + i %}{% endfor %}{{ ns.x }}{{ ns.y }}",
    "{% set ns = namespace() %}{% set ns.a = 1 %}{{ ns.a }}{{ ns.b is defined }}",
    "{% set d.x = 1 %}",
    "{% set a, b = 1, 2 %}{{ a }}{{ b }}",
    "{% set a, b = [1] %}",
    "{% set x = 1, 2 %}{{ x }}",
    "{% set x %}a{{ n }}b{% endset %}[{{ x }}]",
    "{% set x | upper | trim %} ab {% endset %}[{{ x }}]",
    "{% set x = 'a' %}{% with x = 'b', y = x %}{{ x }}{{ y }}{% endwith %}{{ x }}",
    "{% with %}{% set x = 1 %}{{ x }}{% endwith %}{{ x is defined }}",
    "{% macro f(a, b='B', c=none) %}{{ a }}{{ b }}{{ c }}{% endmacro %}{{ f(1) }}|{{ f(1, 2, 3) }}|{{ f(b=1, a=2) }}|{{ f() }}",
    "{% macro f(a) %}{{ a }}{% endmacro %}{{ f(1, 2) }}",
    "{% macro f(a) %}{{ a }}{% endmacro %}{{ f(z=2) }}",
    "{% macro f(a) %}{{ a }}{{ varargs }}{{ kwargs }}{% endmacro %}{{ f(1, 2, 3, x=4) }}",
    "{% macro f() %}{{ varargs | join(',') }}{% endmacro %}{{ f(1, 2) }}{{ f(*[3, 4]) }}",
    "{% macro f() %}{% for k, v in kwargs.items() %}{{ k }}{{ v }}{% endfor %}{% endmacro %}{{ f(a=1, **{'b': 2}) }}",
    "{% macro f(x) %}{% if x > 0 %}{{ x }}{{ f(x - 1) }}{% endif %}{% endmacro %}{{ f(3) }}",
    "{% macro f() %}<{{ caller() }}>{% endmacro %}{% call f() %}in{{ n }}{% endcall %}",
    "{% macro f() %}<{{ caller(1, 2) }}>{% endmacro %}{% call(a, b) f() %}{{ a + b }}{% endcall %}",
    "{% macro f() %}x{% endmacro %}{% call f() %}in{% endcall %}",
    "{% macro f() %}{{ caller is defined }}{% endmacro %}{{ f() }}",
    "{% macro f(a, b=1) %}{% endmacro %}{{ f.name }}{{ f.arguments }}{{ f.catch_kwargs }}{{ f.catch_varargs }}{{ f.caller }}",
    "{% macro f() %}{{ x }}{% endmacro %}{% set x = 1 %}{{ f() }}",
    "{% set x = 1 %}{% macro f() %}{% set x = 2 %}{{ x }}{% endmacro %}{{ f() }}{{ x }}",
    "{% for i in [1, 2] %}{% macro f() %}{{ i }}{{ loop.index }}{% endmacro %}{{ f() }}{% endfor %}",
    "{% macro f() %} a {% endmacro %}[{{ f() | trim }}]{{ f() | length }}",
    "{% macro f() %}{% endmacro %}{{ f is callable }}{{ f() is string }}{{ f() == '' }}",
    "{% filter upper %}a{{ 'b' }}{% endfilter %}",
    "{% filter replace('a', 'b') | upper %}banana{% endfilter %}",
    "{% generation %}{% set x = 2 %}{{ x }}{% endgeneration %}{{ x is defined }}",
    "{%- generation -%} a {%- endgeneration -%} b",
    "{% block main %}a{{ n }}{% endblock %}b",
    "{% block main %}a{% endblock main %}",
    "{% raw %}{{ x }}{% endraw %}",
    "{% raw -%}  {{ x }}  {%- endraw %}!",
    "a{# c #}b{#- d -#} e",
    "  {# c #}\nb",
    "a\n  {% if true %}\n  b\n  {% endif %}\nc",
    "a\n  {%+ if true %}\n  b\n  {%+ endif +%}\nc",
    "a {%- if true -%} b {%- endif -%} c",
    "  {{ n }}\n  {{- n }}\n",
    "{% if true %}\n\na{% endif %}\n\n",
    "a\n\n",
    "a\r\nb\rc\n",
    "{{ '{{' }}{{ '%}' }}{{ \"}}\" }}",
    "{{ {'a': {'b': 1}} }}",
    "{{ {'a': 1}['a'] }}",
    "{{- ' x ' -}}  y",
    "{% if n == 1 %}a{% elif n == 42 %}b{% else %}c{% endif %}",
    "{% if missing %}a{% endif %}{% if not missing %}b{% endif %}",
    "{% if words %}a{% endif %}{% if {} %}b{% endif %}{% if '' %}c{% endif %}{% if 0.0 %}d{% endif %}",
    "{% print n %}",
    "{% print 1, 2 %}",
    "{{ 1, 2 }}",
    "{% set c = cycler('a', 'b') %}{{ c.next() }}{{ c.current }}{{ c.next() }}{{ c.next() }}{{ c.reset() }}{{ c.next() }}",
    "{% set j = joiner() %}{% for i in [1, 2, 3] %}{{ j() }}{{ i }}{% endfor %}",
    "{% set g = words | map('upper') %}{{ g | list | length }}{{ g | list | length }}",
    "{% set g = numbers | select('odd') %}{% for x in g %}{{ x }}{% endfor %}{% for x in g %}{{ x }}{% endfor %}",
    "{% for x in words | batch(2) %}{{ x | join('+') }};{% endfor %}",
    "{% for g in people | groupby('age') %}{{ g.grouper }}:{{ g.list | length }} {% endfor %}",
    "{% for age, list in people | groupby('age') %}{{ age }}:{{ list | map(attribute='name') | join(',') }} {% endfor %}",
    "{% for k, v in d | dictsort %}{{ k }}{% endfor %}",
    "{% for k, v in {'a': 1} | items %}{{ k }}{{ v }}{% endfor %}",
    "{% for i in range(3) %}{{ '%d. %s: ' % (loop.index, messages[i].role) }}{% endfor %}",
    "{% for m in messages %}{{ '<|' ~ m.role ~ '|>' }}{{ m.content if m.content is string else m.content | map(attribute='type') | join }}{% endfor %}",
    "{% for m in messages %}{% if loop.first and m.role == 'system' %}{% set ns = 1 %}{{ m.content | trim }}{% endif %}{% endfor %}",
    "{% for m in messages[::-1] %}{{ m.role[0] }}{% endfor %}",
    "{% set last = messages | selectattr('role', 'equalto', 'user') | list | last %}{{ last.content }}",
    "{% set ns = namespace(found=false) %}{% for m in messages if not ns.found %}{% set ns.found = true %}{{ m.role }}{% endfor %}",
    "{{ raise_exception('no') }}",
    "{% if messages[0].role != 'user' %}{{ raise_exception('user first') }}{% endif %}",
    "{% include 'x' %}",
    "{% extends 'x' %}",
    "{% import 'x' as y %}",
    "{% nope %}",
    "{% if %}a{% endif %}",
    "{% if true %}a",
    "{% endif %}",
    "{{ a",
    "{{ 'a }}",
    "{{ a.b. }}",
    "{{ [1, 2 }}",
    "{# a",
    "{% raw %}a",
    "{% set x = %}",
    "{% set true = 1 %}",
    "{% for x y in z %}{% endfor %}",
    "{% macro f(a=1, b) %}{% endmacro %}",
    "{{ f(a=1, 2) }}",
    "{{ x is defined is string }}",
    "{{ 'a' | }}",
    "{{ }}",
    "{{ 1 +  }}",
    "{{ tools }}|{{ documents is none }}|{{ tools is defined }}",
    "{%- if tools is iterable and tools | length > 0 %}TOOLS{%- endif %}x",
    "{% if tools is not none and tools is iterable %}T{% endif %}x",
    "{{ strftime_now('%%') }}",
    "{{ strftime_now('%Y') | length }}",
    "{% set x = [] %}{% for i in [1, 2] %}{% set x = x + [i] %}{% endfor %}{{ x }}",
    "{% set ns = namespace(l=[]) %}{% for i in [1, 2] %}{% set ns.l = ns.l + [i] %}{% endfor %}{{ ns.l }}",
    "{% autoescape false %}{{ '<' }}{% endautoescape %}",
    "{% for x in [1,2,3] %}{{ x }}{{ ', ' if not loop.last }}{% endfor %}",
    "{% for x in (1, 2) %}{{ x }}{% endfor %}{% for x in 1, 2 %}{{ x }}{% endfor %}",
    "{% for x in {'a': 1}.items() %}{{ x }}{{ x[0] }}{% endfor %}",
    "{{ '\\n' }}|{{ '\\t' }}|{{ \"\\\"\" }}|{{ '\\'' }}",
    "{{ messages[1].content }}|",
    "{{ messages[1].content | tojson }}|",
    "\n\n{{ n }}",
    "   \n  {% set x = 1 %}   \n {{ x }}",
    "\t{% if true %}\tx\t{% endif %}\t\n",
    "a {% if true %} \n b {% endif %} \n c",
    "{%if true%}x{%endif%}",
    "{{n}}{{-n-}}  {{n}}",
]


def cases():
    for expression in EXPRESSIONS:
        yield "{{ " + expression.replace("\\\\", "\\") + " }}"
    yield from BLOCKS


def render(source):
    try:
        return {"rendered": _compile_jinja_template(source).render(**VARIABLES)}
    except (TemplateError, TypeError, ValueError, LookupError, ArithmeticError, AttributeError, AssertionError) as error:
        return {"error": str(error)}


def main():
    found = [{"source": source} | render(source) for source in cases()]
    write_json(DATA / "jinja.json", {"variables": VARIABLES, "cases": found})


if __name__ == "__main__":
    main()
