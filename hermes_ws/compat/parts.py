"""Content as OpenAI's clients send it, as our input: text and images.

Parts of chat completions (``text``, ``image_url``) and of responses (``input_text``, ``output_text``, ``input_image``)
are both taken wherever content is, since clients mix them. Whatever is no text and no image is refused as
``unsupported_content_type``: nobody should believe that a file was read.
"""

from __future__ import annotations

import binascii
from typing import Any, Final
from urllib.parse import urlsplit

from hermes_ws.compat.errors import ApiError
from hermes_ws.compat.fields import invalid, items, missing, named, text, whole_object
from hermes_ws.protocol.values import ContentPart, ImagePart, Input, TextPart
from hermes_ws.store.blobs import image_type

__all__ = ["parts_of", "text_of"]

_TEXTS: Final = {"text": "text", "input_text": "text", "output_text": "text", "refusal": "refusal"}
"""Types of text parts, and the field that has the text."""
_IMAGES: Final = ("image_url", "input_image")
_KNOWN: Final = "text, image_url, input_text, input_image"
_ECHOED: Final = 80


def parts_of(content: Any, path: str) -> Input:
    """Content, a string or an array of parts, as an input. Raises :class:`ApiError`, which names the field."""
    if isinstance(content, str):
        return content
    if not isinstance(content, list):
        wanted = f"is a string or an array of parts, not {named(content)}"
        raise missing(path) if content is None else invalid(path, wanted, "invalid_type")
    given = items(content, path)
    if not given:
        raise invalid(path, "is an empty array; send a string, or at least one part")
    return [_part(part, f"{path}[{number}]") for number, part in enumerate(given)]


def text_of(content: Any, path: str) -> str:
    """Content that may only be text; several parts are lines of it. Raises :class:`ApiError`."""
    parts = parts_of(content, path)
    if isinstance(parts, str):
        return parts
    for number, part in enumerate(parts):
        if not isinstance(part, TextPart):
            raise _unsupported(f"{path}[{number}]", "an image, which only a user's message or a tool's result may have")
    return "\n".join(part.text for part in parts if isinstance(part, TextPart))


def _part(given: Any, path: str) -> ContentPart:
    if isinstance(given, str):  # some clients do not wrap it
        return TextPart(text=given)
    part = whole_object(given, path)
    kind = text(part.get("type"), f"{path}.type")
    if kind in _TEXTS:
        field = _TEXTS[kind]
        return TextPart(text=text(part.get(field), f"{path}.{field}"))
    if kind in _IMAGES:
        return _image(part, path)
    raise _unsupported(path, f"of type {kind[:_ECHOED]!r}")


def _image(part: dict[str, Any], path: str) -> ImagePart:
    """``{"image_url": {"url", "detail"}}`` as in chat completions, or both flat as in responses."""
    if part.get("image_url") is None and part.get("file_id") is not None:
        raise _unsupported(path, "an uploaded file")
    path = f"{path}.image_url"
    given = part.get("image_url")
    if isinstance(given, str):
        url, detail, detail_path = given, part.get("detail"), f"{path.removesuffix('image_url')}detail"
    else:
        image = whole_object(given, path)
        path, detail_path = f"{path}.url", f"{path}.detail"
        url, detail = text(image.get("url"), path), image.get("detail")
    _check_url(url, path)
    return ImagePart(url=url, detail=None if detail is None else text(detail, detail_path))


def _check_url(url: str, path: str) -> None:
    """Here, and not where images are stored, since only here it is known which field it is."""
    scheme = url.partition(":")[0].lower()
    if scheme == "data":
        media_type = url[5:].partition(",")[0].partition(";")[0].strip().lower()
        if not media_type.startswith("image/"):
            raise _unsupported(path, f"data of type {(media_type or 'text/plain')[:_ECHOED]}")
        _check_data(url, path)
    elif not (scheme in ("http", "https") and _has_host(url)):
        raise _no_image(path, "is the image's http:, https: or data: URL")


def _check_data(url: str, path: str) -> None:
    head, comma, payload = url.partition(",")
    if not comma or not head.lower().endswith(";base64"):
        raise _no_image(path, "is a data URL with an image like data:image/png;base64,iVBORw0KGgo…")
    try:
        data = binascii.a2b_base64(payload, strict_mode=True)
    except ValueError as error:
        raise _no_image(path, f"has no base64 after `;base64,`: {error}") from None
    if image_type(data) is None:
        raise _no_image(path, "is no image; PNG, JPEG, GIF and WebP are taken")


def _has_host(url: str) -> bool:
    try:
        return bool(urlsplit(url).hostname) and url.isprintable() and " " not in url
    except ValueError:
        return False


def _no_image(path: str, message: str) -> ApiError:
    return invalid(path, message, "invalid_image_url")


def _unsupported(path: str, what: str) -> ApiError:
    message = f"is {what}; this server takes text and images ({_KNOWN})"
    return invalid(path, message, "unsupported_content_type")
