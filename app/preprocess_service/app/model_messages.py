"""The messages about a model that does not fit the service, for the operator. See translations.py."""

from typing import Literal

Language = Literal["en", "pt"]

MODEL_MESSAGES: dict[str, dict[Language, str]] = {
    "model_refused": {
        "en": "The model server rejected the request ({code}); its log says why. GET /model shows what this service "
        "sends.",
        "pt": "O servidor do modelo rejeitou a requisição ({code}); o log dele diz o motivo. GET /model mostra o que "
        "este serviço envia.",
    },
    "model_message": {
        "en": "The pictures are too large for a message to the model server. Raise model_server.max_message_bytes in "
        "config.yaml, and the model server's own limit.",
        "pt": "As imagens são grandes demais para uma mensagem ao servidor do modelo. Aumente "
        "model_server.max_message_bytes em config.yaml e o limite do próprio servidor do modelo.",
    },
    "model_unreadable": {
        "en": "The model server's answer can't be read. Check that it is TensorFlow Serving or the embedded model "
        "server.",
        "pt": "A resposta do servidor do modelo não pode ser lida. Verifique se ele é o TensorFlow Serving ou o "
        "servidor do modelo embutido.",
    },
    "model_no_recipe": {
        "en": "Version {version} of the model {name} has no recipe, so its labels are unknown. Import it with "
        "'python run.py import', or fill in the section recipe of config.yaml.",
        "pt": "A versão {version} do modelo {name} não tem receita, por isso os seus rótulos são desconhecidos. "
        "Importe-a com 'python run.py import', ou preencha a seção recipe de config.yaml.",
    },
    "model_recipe": {
        "en": "The recipe of version {version} of the model is invalid ({reason}). Import the model again with "
        "'python run.py import'.",
        "pt": "A receita da versão {version} do modelo é inválida ({reason}). Importe o modelo de novo com "
        "'python run.py import'.",
    },
    "model_signature": {
        "en": "The model has no signature {name}; it has: {found}. Import it with 'python run.py import', or set "
        "signature_name in config.yaml.",
        "pt": "O modelo não tem a assinatura {name}; ele tem: {found}. Importe-o com 'python run.py import', ou "
        "defina signature_name em config.yaml.",
    },
    "model_inputs": {
        "en": "The model has {count} inputs ({found}), but exactly one is expected. Import it with 'python run.py "
        "import', or set model_input_name in config.yaml.",
        "pt": "O modelo tem {count} entradas ({found}), mas é esperada exatamente uma. Importe-o com 'python run.py "
        "import', ou defina model_input_name em config.yaml.",
    },
    "model_outputs": {
        "en": "The model has {count} outputs besides domain_score and attention ({found}), but exactly one is "
        "expected. Import it with 'python run.py import', or set model_output_name in config.yaml.",
        "pt": "O modelo tem {count} saídas além de domain_score e attention ({found}), mas é esperada exatamente uma. "
        "Importe-o com 'python run.py import', ou defina model_output_name em config.yaml.",
    },
    "model_no_input": {
        "en": "The model's signature {signature} has no input {name}; it has: {found}. Correct model_input_name in "
        "config.yaml.",
        "pt": "A assinatura {signature} do modelo não tem a entrada {name}; ela tem: {found}. Corrija "
        "model_input_name em config.yaml.",
    },
    "model_no_output": {
        "en": "The model's signature {signature} has no output {name}; it has: {found}. Correct model_output_name in "
        "config.yaml.",
        "pt": "A assinatura {signature} do modelo não tem a saída {name}; ela tem: {found}. Corrija "
        "model_output_name em config.yaml.",
    },
    "model_input_type": {
        "en": "The model's input {name} has the type {type}, but float32 or uint8 is expected. Import the model with "
        "'python run.py import'.",
        "pt": "A entrada {name} do modelo é do tipo {type}, mas é esperado float32 ou uint8. Importe o modelo com "
        "'python run.py import'.",
    },
    "model_input_shape": {
        "en": "The model's input has the shape {takes}, but its recipe makes {makes}. Import the model with 'python "
        "run.py import', or correct the size in the recipe.",
        "pt": "A entrada do modelo tem o formato {takes}, mas a receita dele produz {makes}. Importe o modelo com "
        "'python run.py import', ou corrija o tamanho na receita.",
    },
    "model_labels": {
        "en": "The model gives {values} values, but its recipe has {labels} labels. Import it again with the right "
        "labels: 'python run.py import PATH --labels FILE'.",
        "pt": "O modelo produz {values} valores, mas a receita dele tem {labels} rótulos. Importe-o de novo com os "
        "rótulos certos: 'python run.py import PATH --labels FILE'.",
    },
    "model_one_value": {
        "en": "The model gives one value, but its recipe has {labels} labels. It probably ends in a sigmoid: 'python "
        "run.py import' turns that value into two probabilities.",
        "pt": "O modelo produz um só valor, mas a receita dele tem {labels} rótulos. Ele provavelmente termina em uma "
        "sigmoide: 'python run.py import' transforma esse valor em duas probabilidades.",
    },
    "model_distribution": {
        "en": "The model's output is not a probability distribution (values from {low} to {high}, sum {total}). If "
        "they are logits, 'python run.py import' adds a softmax.",
        "pt": "A saída do modelo não é uma distribuição de probabilidade (valores de {low} a {high}, soma {total}). "
        "Se forem logits, 'python run.py import' acrescenta uma softmax.",
    },
    "model_domain_score": {
        "en": "The model's output domain_score is {score}, but a value from 0 to 1 is expected.",
        "pt": "A saída domain_score do modelo é {score}, mas é esperado um valor de 0 a 1.",
    },
    "model_output_type": {
        "en": "The model's output {name} is missing or is not float32.",
        "pt": "A saída {name} do modelo está ausente ou não é float32.",
    },
    "model_output_size": {
        "en": "The model's output {name} has {values} values, but {wanted} are expected.",
        "pt": "A saída {name} do modelo tem {values} valores, mas são esperados {wanted}.",
    },
    "model_golden": {
        "en": "Version {version} of the model fails its golden check: the answers to its sample photos are wrong "
        "({findings}).",
        "pt": "A versão {version} do modelo não passa na verificação: as respostas às suas fotos de referência estão "
        "erradas ({findings}).",
    },
    "model_loading": {
        "en": "Version {version} of the model {name} is being loaded. Try again in a moment.",
        "pt": "A versão {version} do modelo {name} está sendo carregada. Tente de novo em instantes.",
    },
    "model_not_loaded": {
        "en": "Version {version} of the model {name} could not be loaded; the model server's log says why.",
        "pt": "A versão {version} do modelo {name} não pôde ser carregada; o log do servidor do modelo diz o motivo.",
    },
    "model_not_there": {
        "en": "The model server has no model {name}. Set MODEL_NAME, or experiment_id in config.yaml, to the name of "
        "the model that it serves.",
        "pt": "O servidor do modelo não tem o modelo {name}. Defina MODEL_NAME, ou experiment_id em config.yaml, "
        "com o nome do modelo que ele serve.",
    },
    "model_other": {
        "en": "The model server has no model {name}; it serves {found}. Set the same MODEL_NAME for both services.",
        "pt": "O servidor do modelo não tem o modelo {name}; ele serve {found}. Defina o mesmo MODEL_NAME para os "
        "dois serviços.",
    },
    "model_changes": {
        "en": "The version of the model is changing right now. Try again in a moment.",
        "pt": "A versão do modelo está mudando agora. Tente de novo em instantes.",
    },
}
