"""Chat templates of the families that people load, and the prompts that transformers renders from them."""

from jinja2.exceptions import TemplateError
from transformers import PreTrainedTokenizerFast

import families
from common import DATA, FIXTURES, TINY_LLAVA, write_json

LLAVA = (
    "{% for message in messages %}{% if message['role'] != 'system' %}{{ message['role'].upper() + ': '}}{% endif %}"
    "{# Render all images first #}"
    "{% for content in message['content'] | selectattr('type', 'equalto', 'image') %}{{ '<image>\n' }}{% endfor %}"
    "{# Render all text next #}"
    "{% if message['role'] != 'assistant' %}"
    "{% for content in message['content'] | selectattr('type', 'equalto', 'text') %}{{ content['text'] + ' '}}{% endfor %}"
    "{% else %}"
    "{% for content in message['content'] | selectattr('type', 'equalto', 'text') %}"
    "{% generation %}{{ content['text'] + ' '}}{% endgeneration %}{% endfor %}"
    "{% endif %}{% endfor %}{% if add_generation_prompt %}{{ 'ASSISTANT:' }}{% endif %}"
)

VICUNA = (
    "{% if messages[0]['role'] == 'system' %}{% set system = messages[0]['content'] %}{% set rest = messages[1:] %}"
    "{% else %}{% set system = 'A chat between a curious user and an artificial intelligence assistant. "
    "The assistant gives helpful, detailed, and polite answers to the user\\'s questions.' %}{% set rest = messages %}"
    "{% endif %}"
    "{% if system is string %}{{ system }}{% else %}{% for part in system %}{{ part['text'] }}{% endfor %}{% endif %}"
    "{% for message in rest %}"
    "{% if message['role'] == 'user' %}{{ ' USER: ' }}"
    "{% if message['content'] is string %}{{ message['content'] | trim }}{% else %}"
    "{% for part in message['content'] %}"
    "{% if part['type'] == 'image' %}{{ '<image>\\n' }}{% else %}{{ part['text'] | trim }}{% endif %}"
    "{% endfor %}{% endif %}"
    "{% elif message['role'] == 'assistant' %}{{ ' ASSISTANT: ' }}"
    "{% if message['content'] is string %}{{ message['content'] | trim }}{% else %}"
    "{% for part in message['content'] %}{{ part['text'] | trim }}{% endfor %}{% endif %}{{ eos_token }}"
    "{% else %}{{ raise_exception('Unknown role: ' + message['role']) }}{% endif %}"
    "{% endfor %}{% if add_generation_prompt %}{{ ' ASSISTANT:' }}{% endif %}"
)

LLAMA3 = (
    "{% set loop_messages = messages %}{% for message in loop_messages %}"
    "{% set content = '<|start_header_id|>' + message['role'] + '<|end_header_id|>\n\n'"
    "+ message['content'] | trim + '<|eot_id|>' %}"
    "{% if loop.index0 == 0 %}{% set content = bos_token + content %}{% endif %}{{ content }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|start_header_id|>assistant<|end_header_id|>\n\n' }}{% endif %}"
)

MISTRAL = (
    "{{ bos_token }}{% for message in messages %}"
    "{% if (message['role'] == 'user') != (loop.index0 % 2 == 0) %}"
    "{{ raise_exception('Conversation roles must alternate user/assistant/user/assistant/...') }}{% endif %}"
    "{% if message['role'] == 'user' %}{{ '[INST] ' + message['content'] + ' [/INST]' }}"
    "{% elif message['role'] == 'assistant' %}{{ message['content'] + eos_token + ' ' }}"
    "{% else %}{{ raise_exception('Only user and assistant roles are supported!') }}{% endif %}{% endfor %}"
)

MODERN = """\
{%- macro part_text(part) -%}
    {%- if part is string -%}{{ part }}{%- else -%}{{ part.get('text', '') }}{%- endif -%}
{%- endmacro -%}
{%- set ns = namespace(images=0, system=none) %}
{%- if messages[0].role == "system" %}
    {%- set ns.system = messages[0].content %}
{%- endif %}
{{- bos_token }}
{% if ns.system is not none %}
    <<SYS>>{{ ns.system | trim }}<</SYS>>
{% endif %}
{% for message in messages %}
    {% if message.role == "system" %}{% continue %}{% endif %}
    {% if message.content is string %}
{{ loop.index0 }}/{{ loop.length }} {{ message.role | capitalize }}: {{ message.content.strip().split('</think>')[-1] }}
    {% else %}
        {%- for part in message.content %}
            {%- if part.type == "image" %}
                {%- set ns.images = ns.images + 1 %}
                {{- "[image %d]" | format(ns.images) }}
            {%- else %}
                {{- part_text(part) }}
            {%- endif %}
        {%- endfor %}

    {% endif %}
{% endfor %}
{% if extra is defined %}{{ extra | tojson }}{% endif %}
{{ messages[-1] | tojson }}
{%- for key, value in messages[-1].items() if key != "content" %} {{ key }}={{ value }}{%- endfor %}
{% if add_generation_prompt %}
Assistant:
{%- endif %}
"""


def text(value):
    return {"type": "text", "text": value}


def turn(role, *parts):
    return {"role": role, "content": list(parts) if parts and isinstance(parts[0], dict) else parts[0]}


IMAGE = {"type": "image"}
ONE = [turn("user", IMAGE, text("What is this?"))]
TEXT_AFTER = [turn("user", text("Look: "), IMAGE, text("what is it?"))]
TWO_IMAGES = [turn("user", IMAGE, IMAGE, text("Which is  larger? "))]
TWO_TURNS = [
    turn("user", IMAGE, text("What is this?")),
    turn("assistant", text("A small house.")),
    turn("user", IMAGE, text("And this?")),
]
CLOSED = TWO_TURNS[:2]
SYSTEM_PARTS = [turn("system", text("Be brief."))] + ONE
SYSTEM = [turn("system", " Be brief. "), turn("user", "Hi "), turn("assistant", "Hello! <b>&'\"</b>"), turn("user", " Why?\n")]
PLAIN = SYSTEM[1:]
WRONG_ORDER = [turn("user", "Hi"), turn("user", "Hi again")]
WRONG_ROLE = [turn("user", "Hi"), turn("tool", "42")]
THINKING = [turn("user", "2 + 2?"), turn("assistant", "<think>\nEasy.\n</think>\n\n4"), turn("user", "Sure?")]
TOOL = [turn("user", "Time?"), turn("assistant", "One moment."), turn("tool", "12:00")]
UNICODE = [turn("user", text("Größe? 漢字 😀 <image> & \"quotes\""))]

PARTS = [ONE, TEXT_AFTER, TWO_IMAGES, TWO_TURNS, CLOSED, UNICODE]
LIKE_LLAMA = {"bos_token": "<s>", "eos_token": "</s>"}
LIKE_LLAMA3 = {"bos_token": "<|begin_of_text|>", "eos_token": "<|eot_id|>"}

CASES = {
    "tiny-llava": (LIKE_LLAMA, PARTS + [PLAIN]),
    "llava-1.5-hf": (LIKE_LLAMA, PARTS + [SYSTEM_PARTS, PLAIN]),
    "vicuna": (LIKE_LLAMA, PARTS + [SYSTEM_PARTS, SYSTEM, PLAIN, WRONG_ROLE]),
    "llama-3": (LIKE_LLAMA3, [PLAIN, SYSTEM]),
    "mistral": (LIKE_LLAMA, [PLAIN, SYSTEM, WRONG_ORDER, WRONG_ROLE]),
    "modern": (LIKE_LLAMA, [PLAIN, SYSTEM, ONE, TWO_TURNS, UNICODE]),
}
CASES |= {name: (LIKE_LLAMA, [PLAIN, SYSTEM, WRONG_ORDER, THINKING, TOOL]) for name in families.TEXT}
CASES |= {name: (LIKE_LLAMA, [PLAIN, SYSTEM, ONE, TWO_TURNS, SYSTEM_PARTS, UNICODE]) for name in families.VISION}


def template_of(name):
    known = {"llava-1.5-hf": LLAVA, "vicuna": VICUNA, "llama-3": LLAMA3, "mistral": MISTRAL, "modern": MODERN}
    known |= families.TEXT | families.VISION
    return known[name] if name in known else (TINY_LLAVA / "chat_template.jinja").read_text()


def render(tokenizer, template, messages, generation):
    try:
        made = tokenizer.apply_chat_template(
            messages, chat_template=template, add_generation_prompt=generation, tokenize=False
        )
        return {"rendered": made}
    except (TemplateError, TypeError) as error:
        return {"error": str(error), "raised_by_template": type(error) is TemplateError}


def main():
    tokenizer = PreTrainedTokenizerFast.from_pretrained(FIXTURES / "tokenizers" / "sentencepiece")
    found = []
    for name, (named, conversations) in CASES.items():
        tokenizer.bos_token, tokenizer.eos_token = named["bos_token"], named["eos_token"]
        template = template_of(name)
        cases = [
            {"messages": messages, "add_generation_prompt": generation}
            | render(tokenizer, template, messages, generation)
            for messages in conversations
            for generation in (True, False)
        ]
        found.append({"name": name, "template": template} | named | {"cases": cases})
    write_json(DATA / "templates.json", found)


if __name__ == "__main__":
    main()
