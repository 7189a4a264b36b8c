"""What an error's text may hold."""

from comfyui_flow3d.flow3d.errors import Flow3DError, InputError


def test_what_cannot_be_printed_is_escaped() -> None:
    """Half a character in a message that is logged ended ComfyUI's queue for good."""
    told = str(InputError("'a\ud800b\0\x1b[2J\u202e' is no name.\nChoose another."))
    assert told == "'a\\ud800b\\x00\\x1b[2J\\u202e' is no name.\nChoose another."
    told.encode()


def test_ordinary_text_stays() -> None:
    text = "Zoë's «Kopf» 頭: 20 °C, a 'b'.\nUse another."
    assert str(Flow3DError(text)) == text


def test_a_long_message_keeps_its_beginning_and_its_end() -> None:
    told = str(InputError("FLAME Edit: '" + "x" * 1_000_000 + "' is no edit. Use yaw."))
    assert told.startswith("FLAME Edit: 'xxx") and told.endswith("xxx' is no edit. Use yaw.") and len(told) < 1600
