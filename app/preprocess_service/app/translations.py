"""The service's messages for its clients, in English and in Brazilian Portuguese."""

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
        "pt": "Base64 da imagem inválido. Envie os bytes da imagem em base64 e nada mais.",
    },
    "base64_data_url": {
        "en": "Image base64 invalid: the data: URL has no ';base64,'. Write its content in base64 after it.",
        "pt": "Base64 da imagem inválido: falta ';base64,' na URL data:. Escreva o conteúdo em base64 logo depois.",
    },
    "base64_quoted": {
        "en": "Image base64 invalid: it begins with a quotation mark, like b'...'. Send the text without quotes: "
        "in Python, base64.b64encode(data).decode().",
        "pt": "Base64 da imagem inválido: começa com aspas, como em b'...'. Envie o texto sem elas: em Python, "
        "base64.b64encode(data).decode().",
    },
    "base64_blanks": {
        "en": "Image base64 invalid: it has blanks where base64 has '+'. The decoding of a form or URL turns '+' into "
        "a blank. Write '+' as %2B there, or send JSON.",
        "pt": "Base64 da imagem inválido: há espaços onde o base64 tem '+'. A decodificação de um formulário ou de "
        "uma URL transforma '+' em espaço. Ali, escreva '+' como %2B, ou envie JSON.",
    },
    "image_empty": {
        "en": "The picture is empty: it has 0 bytes. Send the file's bytes.",
        "pt": "A imagem está vazia: tem 0 bytes. Envie os bytes do arquivo.",
    },
    "image_unknown": {
        "en": "This is not a picture of a supported format. Send one of {formats}.",
        "pt": "Isto não é uma imagem em um formato aceito. Envie um destes formatos: {formats}.",
    },
    "image_broken": {
        "en": "The picture is truncated or broken. Save it again and send that file.",
        "pt": "A imagem está incompleta ou corrompida. Salve-a de novo e envie o novo arquivo.",
    },
    "image_format": {
        "en": "Pictures of this format are not supported: {name}. Send one of {formats}.",
        "pt": "Imagens deste formato não são aceitas: {name}. Envie um destes formatos: {formats}.",
    },
    "image_variant": {
        "en": "Pictures of this kind are not supported: {name}. Save it as a JPEG, or as a PNG with 8 bits per "
        "channel.",
        "pt": "Imagens deste tipo não são aceitas: {name}. Salve a imagem como JPEG, ou como PNG de 8 bits por canal.",
    },
    "image_pixels": {
        "en": "The picture has more than {megapixels} megapixels. Send a smaller one.",
        "pt": "A imagem tem mais de {megapixels} megapixels. Envie uma menor.",
    },
    "image_memory": {
        "en": "Decoding this picture takes too much memory. Send it with fewer pixels, or as a baseline JPEG.",
        "pt": "A decodificação desta imagem exige memória demais. Envie-a com menos pixels, ou como JPEG baseline.",
    },
    "image_seconds": {
        "en": "Decoding this picture takes too long. Send it with fewer pixels, or as a JPEG that is not progressive.",
        "pt": "A decodificação desta imagem demora demais. Envie-a com menos pixels, ou como JPEG não progressivo.",
    },
    "decoders": {
        "en": "The service can't start a process to decode pictures now. Try again in a moment.",
        "pt": "O serviço não consegue iniciar agora um processo para decodificar imagens. Tente de novo em instantes.",
    },
    "batch_pixels": {
        "en": "The large pictures of this request have more than {megapixels} megapixels in total. Send this one in "
        "another request.",
        "pt": "As imagens grandes desta requisição têm, no total, mais de {megapixels} megapixels. Envie esta em "
        "outra requisição.",
    },
    "body_bytes": {
        "en": "The body has more than {megabytes} MB. Send a smaller picture.",
        "pt": "O corpo da requisição tem mais de {megabytes} MB. Envie uma imagem menor.",
    },
    "media_type": {
        "en": "Bodies of type {media_type} are not supported. Send {example} as application/json, "
        "the picture itself as image/*, or a form with the field 'file'.",
        "pt": "Corpos do tipo {media_type} não são aceitos. Envie {example} como application/json, "
        "a própria imagem como image/*, ou um formulário com o campo 'file'.",
    },
    "media_type_batch": {
        "en": "Bodies of type {media_type} are not supported here. Send {example} as application/json, "
        "or a form with several fields 'file'.",
        "pt": "Corpos do tipo {media_type} não são aceitos aqui. Envie {example} como application/json, "
        "ou um formulário com vários campos 'file'.",
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
        "en": "The JSON has too many items or fields. Send {example}.",
        "pt": "O JSON tem itens ou campos demais. Envie {example}.",
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
        "en": "Field '{field}' has the wrong type. Send {example}.",
        "pt": "O campo '{field}' tem o tipo errado. Envie {example}.",
    },
    "timeout_header": {
        "en": "The header X-Request-Timeout-Ms must be a whole number of milliseconds, 1 or more.",
        "pt": "O cabeçalho X-Request-Timeout-Ms deve ser um número inteiro de milissegundos, 1 ou mais.",
    },
    "form_boundary": {
        "en": "The form's Content-Type has no boundary. Let the library that makes the form set Content-Type: it must "
        "be multipart/form-data with the boundary between the form's parts.",
        "pt": "Falta o boundary no Content-Type do formulário. Deixe que a biblioteca que monta o formulário defina o "
        "Content-Type: deve ser multipart/form-data com o separador (boundary) entre as partes.",
    },
    "form_invalid": {
        "en": "The form can't be read: the boundary of its Content-Type does not separate its parts, or the headers "
        "of a part are broken. Send multipart/form-data with the picture in the field 'file'.",
        "pt": "O formulário não pode ser lido: o boundary do Content-Type não separa as partes, ou os cabeçalhos "
        "de uma parte estão corrompidos. Envie multipart/form-data com a imagem no campo 'file'.",
    },
    "form_cut": {
        "en": "The form ends before its last boundary: a part of it is missing. Send the whole form in one request.",
        "pt": "O formulário termina antes do último boundary: falta uma parte. Envie-o inteiro em uma só requisição.",
    },
    "form_empty": {
        "en": "The form has no field. Send multipart/form-data with the picture in the field 'file'.",
        "pt": "O formulário não tem nenhum campo. Envie multipart/form-data com a imagem no campo 'file'.",
    },
    "form_no_file": {
        "en": "The form has no field 'file'; it has: {fields}. Send multipart/form-data with the picture in the field "
        "'file'.",
        "pt": "O formulário não tem o campo 'file'; ele tem: {fields}. Envie multipart/form-data com a imagem no "
        "campo 'file'.",
    },
    "form_parts": {
        "en": "The form has too many fields. Send multipart/form-data with the picture in the field 'file'.",
        "pt": "O formulário tem campos demais. Envie multipart/form-data com a imagem no campo 'file'.",
    },
    "form_one_file": {
        "en": "The form has {sent} pictures in the field 'file'. Send multipart/form-data with one picture. For "
        "several, use /predict/batch.",
        "pt": "O formulário tem {sent} imagens no campo 'file'. Envie multipart/form-data com uma imagem. Para várias, "
        "use /predict/batch.",
    },
    "content_encoding": {
        "en": "Bodies with Content-Encoding {name} are not supported. Send the body uncompressed, or with gzip or "
        "deflate.",
        "pt": "Corpos com Content-Encoding {name} não são aceitos. Envie o corpo sem compressão, ou com gzip ou "
        "deflate.",
    },
    "encoding_broken": {
        "en": "The body is not valid {name}, although its Content-Encoding says so. Compress it again, or send it "
        "uncompressed, without that header.",
        "pt": "O corpo não é {name} válido, embora o Content-Encoding diga que é. Comprima-o de novo, ou envie-o "
        "sem compressão e sem esse cabeçalho.",
    },
    "encoding_cut": {
        "en": "The body is truncated: the end of its {name} data is missing. Send the whole body, or send it "
        "uncompressed, without Content-Encoding.",
        "pt": "O corpo está incompleto: falta o fim dos dados em {name}. Envie o corpo inteiro, ou envie-o sem "
        "compressão e sem Content-Encoding.",
    },
    "batch_items": {
        "en": "A batch can have 1 to {items} pictures; this one has {sent}. Send at most {items} in one request.",
        "pt": "Um lote pode ter de 1 a {items} imagens; este tem {sent}. Envie no máximo {items} por requisição.",
    },
    "model_error": {
        "en": "The model server could not process this picture. The operator can find the reason in the log.",
        "pt": "O servidor do modelo não conseguiu processar esta imagem. O operador encontra o motivo no log.",
    },
    "top_k_number": {
        "en": "top_k must be a whole number from 1 to {most}.",
        "pt": "top_k deve ser um número inteiro de 1 a {most}.",
    },
    "explain_switch": {
        "en": "explain must be true or false.",
        "pt": "explain deve ser true ou false.",
    },
    "no_explanation": {
        "en": "The model can't say where it looked: it has no output 'attention'. Send the request without explain.",
        "pt": "O modelo não sabe dizer para onde olhou: ele não tem a saída 'attention'. Envie a requisição sem "
        "explain.",
    },
    "overloaded": {
        "en": "The service is overloaded right now. Try again in a moment.",
        "pt": "O serviço está sobrecarregado no momento. Tente de novo em instantes.",
    },
    "draining": {
        "en": "This server is shutting down. Use another one, or try again in a moment.",
        "pt": "Este servidor está sendo encerrado. Use outro, ou tente de novo em instantes.",
    },
    "model_unavailable": {
        "en": "The model is not available right now. Try again in a moment.",
        "pt": "O modelo não está disponível agora. Tente de novo em instantes.",
    },
    "deadline_exceeded": {
        "en": "The answer was not ready in time. Try again in a moment.",
        "pt": "A resposta não ficou pronta a tempo. Tente de novo em instantes.",
    },
    "unauthorized": {
        "en": "A valid API key is needed. Send it as 'Authorization: Bearer <key>'.",
        "pt": "É necessária uma chave de API válida. Envie-a como 'Authorization: Bearer <chave>'.",
    },
    "request_timeout": {
        "en": "The request did not arrive in time. Send it again, over a faster connection or with a smaller picture.",
        "pt": "A requisição não chegou a tempo. Envie-a de novo, por uma conexão mais rápida ou com uma imagem menor.",
    },
    "body_slowest": {
        "en": "The service is receiving too many requests, and this one was the slowest. Try again in a moment.",
        "pt": "O serviço está recebendo requisições demais, e esta era a mais lenta. Tente de novo em instantes.",
    },
    "headers_too_large": {
        "en": "The request has too many headers, trailers or chunks, or they are too long. Send fewer or shorter "
        "headers, and larger chunks.",
        "pt": "A requisição tem cabeçalhos, trailers ou chunks demais, ou eles são longos demais. Envie "
        "cabeçalhos mais curtos ou em menor número, e chunks maiores.",
    },
    "invalid_http": {
        "en": "This is not a valid HTTP/1.1 request. For example, it must have exactly one Host header.",
        "pt": "Esta não é uma requisição HTTP/1.1 válida. Por exemplo, ela deve ter exatamente um cabeçalho Host.",
    },
    "not_found": {
        "en": "There is no route {path}. See /docs for all routes.",
        "pt": "A rota {path} não existe. Veja todas as rotas em /docs.",
    },
    "model_unknown": {
        "en": "This service has no model {name}; it has: {found}.",
        "pt": "Este serviço não tem o modelo {name}; ele tem: {found}.",
    },
    "method_not_allowed": {
        "en": "{path} does not accept the method {method}. See /docs for the methods of each route.",
        "pt": "{path} não aceita o método {method}. Veja em /docs os métodos de cada rota.",
    },
    "internal_error": {
        "en": "The service has an internal error. Report it with this request_id.",
        "pt": "O serviço teve um erro interno. Relate o problema e informe este request_id.",
    },
}


def translate(message: str, language: Language, values: dict[str, object]) -> str:
    """Return the text of a message, with its ``{placeholders}`` filled from ``values``.

    Args:
        values: a value that is not the same in all languages is a dict of its texts by language.
    """
    filled = {key: value[language] if isinstance(value, dict) else value for key, value in values.items()}
    return MESSAGES[message][language].format(**filled)


@functools.lru_cache(maxsize=256)
def negotiate(accept_language: str) -> Language:
    """Return the language that an Accept-Language header prefers (RFC 9110, 12.5.4); English if it has neither."""
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
