"""What the service says to people, in English and in Brazilian Portuguese."""

import functools

from preprocess_service.app.model_messages import MODEL_MESSAGES
from preprocess_service.app.model_messages import Language as Language

MESSAGES: dict[str, dict[Language, str]] = MODEL_MESSAGES | {
    "base64_empty": {
        "en": "Image base64 invalid: the text is empty. Send the picture's bytes as base64.",
        "pt": "Base64 da imagem inválido: o texto está vazio. Envie os bytes da imagem em base64.",
    },
    "base64_invalid": {
        "en": "Image base64 invalid. Send the picture's bytes as base64, nothing else.",
        "pt": "Base64 da imagem inválido. Envie os bytes da imagem em base64, nada mais.",
    },
    "image_empty": {
        "en": "There is no picture: it has 0 bytes. Send the file's bytes.",
        "pt": "Não há imagem: são 0 bytes. Envie os bytes do arquivo.",
    },
    "image_unknown": {
        "en": "This is not a picture that can be read. Send one of {formats}.",
        "pt": "Isto não é uma imagem que possa ser lida. Envie um destes formatos: {formats}.",
    },
    "image_broken": {
        "en": "The picture is truncated or broken. Save it again and send that file.",
        "pt": "A imagem está cortada ou corrompida. Salve-a de novo e envie esse arquivo.",
    },
    "image_format": {
        "en": "Pictures of this format are not taken: {name}. Send one of {formats}.",
        "pt": "Imagens deste formato não são aceitas: {name}. Envie um destes formatos: {formats}.",
    },
    "image_pixels": {
        "en": "The picture has more than {megapixels} megapixels. Send a smaller one.",
        "pt": "A imagem tem mais de {megapixels} megapixels. Envie uma menor.",
    },
    "image_memory": {
        "en": "The picture takes too much memory to decode. Send it with fewer pixels, or as a JPEG.",
        "pt": "A imagem exige memória demais para ser decodificada. Envie-a com menos pixels, ou como JPEG.",
    },
    "image_seconds": {
        "en": "The picture takes too long to decode. Send it with fewer pixels, or as a JPEG that is not progressive.",
        "pt": "A imagem demora demais para ser decodificada. Envie-a com menos pixels, ou como JPEG não progressivo.",
    },
    "decoders": {
        "en": "No process that decodes pictures can be started now. Try again in a moment.",
        "pt": "Nenhum processo que decodifica imagens pode ser iniciado agora. Tente de novo em instantes.",
    },
    "batch_pixels": {
        "en": "The pictures of this request have together more than {megapixels} megapixels. Send this one apart.",
        "pt": "As imagens desta requisição têm juntas mais de {megapixels} megapixels. Envie esta separadamente.",
    },
    "body_bytes": {
        "en": "The body has more than {megabytes} MB. Send a smaller picture.",
        "pt": "O corpo da requisição tem mais de {megabytes} MB. Envie uma imagem menor.",
    },
    "media_type": {
        "en": "Bodies of type {media_type} are not taken. Send {example} as application/json, "
        "the picture itself as image/*, or a form with the field 'file'.",
        "pt": "Corpos do tipo {media_type} não são aceitos. Envie {example} como application/json, "
        "a própria imagem como image/*, ou um formulário com o campo 'file'.",
    },
    "json_invalid": {
        "en": "The body is not JSON. Send {example}.",
        "pt": "O corpo não é JSON. Envie {example}.",
    },
    "json_not_object": {
        "en": "The body is not a JSON object. Send {example}.",
        "pt": "O corpo não é um objeto JSON. Envie {example}.",
    },
    "json_parts": {
        "en": "The JSON has far more items or fields than a request can have. Send {example}.",
        "pt": "O JSON tem muito mais itens ou campos do que uma requisição pode ter. Envie {example}.",
    },
    "field_missing": {
        "en": "Field '{field}' is missing. Send {example}.",
        "pt": "Falta o campo '{field}'. Envie {example}.",
    },
    "field_unknown": {
        "en": "Field '{field}' is unknown. Send {example}.",
        "pt": "O campo '{field}' é desconhecido. Envie {example}.",
    },
    "field_type": {
        "en": "Field '{field}' is of the wrong type. Send {example}.",
        "pt": "O campo '{field}' é do tipo errado. Envie {example}.",
    },
    "timeout_header": {
        "en": "The header X-Request-Timeout-Ms must be a whole number of milliseconds, 1 or more.",
        "pt": "O cabeçalho X-Request-Timeout-Ms deve ser um número inteiro de milissegundos, 1 ou mais.",
    },
    "form_invalid": {
        "en": "The form can't be read. Send multipart/form-data with the picture in the field 'file'.",
        "pt": "O formulário não pode ser lido. Envie multipart/form-data com a imagem no campo 'file'.",
    },
    "form_one_file": {
        "en": "The form must hold one picture, in the field 'file'. For several use /predict/batch.",
        "pt": "O formulário deve ter uma imagem, no campo 'file'. Para várias use /predict/batch.",
    },
    "batch_items": {
        "en": "A batch holds 1 to {items} pictures; this one has {sent}. Send it in parts.",
        "pt": "Um lote tem de 1 a {items} imagens; este tem {sent}. Envie-o em partes.",
    },
    "model_error": {
        "en": "The model server could not work with this picture; its operator finds the reason in the log.",
        "pt": "O servidor do modelo não pôde usar esta imagem; o operador encontra o motivo no log.",
    },
    "top_k_number": {
        "en": "top_k must be a whole number from 1 to {most}.",
        "pt": "top_k deve ser um número inteiro de 1 a {most}.",
    },
    "invalid_top_k": {
        "en": "top_k must be a whole number from 1 to {most}, as many as there are labels.",
        "pt": "top_k deve ser um número inteiro de 1 a {most}, o número de rótulos.",
    },
    "overloaded": {
        "en": "There is more work than can be done right now. Try again in a moment.",
        "pt": "Há mais trabalho do que é possível atender agora. Tente de novo em instantes.",
    },
    "draining": {
        "en": "This process is about to end. Ask another, or try again in a moment.",
        "pt": "Este processo está prestes a terminar. Use outro, ou tente de novo em instantes.",
    },
    "model_unavailable": {
        "en": "The model is not available right now. Try again in a moment.",
        "pt": "O modelo não está disponível agora. Tente de novo em instantes.",
    },
    "deadline_exceeded": {
        "en": "The answer did not come in time. Try again in a moment.",
        "pt": "A resposta não chegou a tempo. Tente de novo em instantes.",
    },
    "unauthorized": {
        "en": "A key is needed here. Send one that this service knows, as 'Authorization: Bearer <key>'.",
        "pt": "Aqui é preciso uma chave. Envie uma que este serviço conheça, como 'Authorization: Bearer <chave>'.",
    },
    "request_timeout": {
        "en": "The request did not come in in time. Send it again, over a faster line or with a smaller picture.",
        "pt": "A requisição não chegou a tempo. Envie-a de novo, por uma linha mais rápida ou com uma imagem menor.",
    },
    "body_slowest": {
        "en": "More requests come in than there is room for, and this one came in most slowly. Try again in a moment.",
        "pt": "Chegam mais requisições do que cabem, e esta é a que chegava mais devagar. Tente de novo em instantes.",
    },
    "headers_too_large": {
        "en": "The request has more headers, trailers or parts of a chunked body than are taken. Send fewer or shorter "
        "headers, and larger chunks.",
        "pt": "A requisição tem mais cabeçalhos, trailers ou partes (chunks) do que o aceito. Envie menos cabeçalhos, "
        "ou mais curtos, e chunks maiores.",
    },
    "invalid_http": {
        "en": "This is not a request of HTTP/1.1 that can be understood. Every request has one header Host.",
        "pt": "Isto não é uma requisição HTTP/1.1 que possa ser entendida. Toda requisição tem um cabeçalho Host.",
    },
    "not_found": {
        "en": "There is nothing at {path}. See /docs for what there is.",
        "pt": "Não há nada em {path}. Veja em /docs o que existe.",
    },
    "method_not_allowed": {
        "en": "{path} does not take {method}. See /docs for what it takes.",
        "pt": "{path} não aceita {method}. Veja em /docs o que ele aceita.",
    },
    "internal_error": {
        "en": "Something went wrong here. Report it with this request_id.",
        "pt": "Algo deu errado aqui. Informe o problema com este request_id.",
    },
}


def translate(message: str, language: Language, values: dict[str, object]) -> str:
    """The text of a message, its ``{placeholders}`` filled from ``values``."""
    return MESSAGES[message][language].format(**values)


@functools.lru_cache(maxsize=256)
def negotiate(accept_language: str) -> Language:
    """The language that an Accept-Language header likes best (RFC 9110, 12.5.4); English where it likes neither."""
    best: Language = "en"
    best_quality = 0.0
    for part in accept_language.lower().split(","):
        tag, _, quality = part.partition(";q=")
        language = tag.strip().partition("-")[0]
        try:
            weight = float(quality or 1)
        except ValueError:
            continue
        if language in ("en", "pt") and weight > best_quality:
            best, best_quality = ("pt" if language == "pt" else "en"), weight
    return best
