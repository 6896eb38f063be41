"""What the service says where it and the model do not fit together, for whoever set them up: see translations.py."""

from typing import Literal

Language = Literal["en", "pt"]

MODEL_MESSAGES: dict[str, dict[Language, str]] = {
    "model_refused": {
        "en": "The model server refused what it was sent ({code}); its log says why. GET /model tells what this "
        "service sends.",
        "pt": "O servidor do modelo recusou o que recebeu ({code}); o log dele diz o motivo. GET /model mostra o "
        "que este serviço envia.",
    },
    "model_message": {
        "en": "The pictures are too large for a message to the model server: raise model_server.max_message_bytes"
        " here, and the limit there.",
        "pt": "As imagens são grandes demais para uma mensagem ao servidor do modelo: aumente "
        "model_server.max_message_bytes aqui, e o limite lá.",
    },
    "model_unreadable": {
        "en": "The model server's answer can't be read: is it TensorFlow Serving, or the embedded model server?",
        "pt": "A resposta do servidor do modelo não pode ser lida: ele é o TensorFlow Serving ou o servidor embutido?",
    },
    "model_no_recipe": {
        "en": "Version {version} of the model {name} has no recipe, so nobody knows its labels. Import it with "
        "'python run.py import', or fill in the section recipe of config.yaml.",
        "pt": "A versão {version} do modelo {name} não tem receita, e assim ninguém sabe os seus rótulos. "
        "Importe-a com 'python run.py import', ou preencha a seção recipe de config.yaml.",
    },
    "model_recipe": {
        "en": "The recipe of version {version} of the model can't be used ({reason}). Import the model again with"
        " 'python run.py import'.",
        "pt": "A receita da versão {version} do modelo não pode ser usada ({reason}). Importe o modelo de novo "
        "com 'python run.py import'.",
    },
    "model_signature": {
        "en": "The model has no signature {name}; it has: {found}. Import it with 'python run.py import', or set "
        "signature_name in config.yaml.",
        "pt": "O modelo não tem a assinatura {name}; ele tem: {found}. Importe-o com 'python run.py import', ou "
        "defina signature_name em config.yaml.",
    },
    "model_inputs": {
        "en": "The model has {count} inputs ({found}), and one is wanted. Import it with 'python run.py import', "
        "or name one as model_input_name in config.yaml.",
        "pt": "O modelo tem {count} entradas ({found}), e uma é esperada. Importe-o com 'python run.py import', "
        "ou indique uma como model_input_name em config.yaml.",
    },
    "model_outputs": {
        "en": "The model has {count} outputs ({found}), and one is wanted beside domain_score. Import it with "
        "'python run.py import', or name one as model_output_name in config.yaml.",
        "pt": "O modelo tem {count} saídas ({found}), e uma é esperada além de domain_score. Importe-o com "
        "'python run.py import', ou indique uma como model_output_name em config.yaml.",
    },
    "model_no_input": {
        "en": "The model's signature {signature} has no input {name}; it has: {found}. See model_input_name in "
        "config.yaml.",
        "pt": "A assinatura {signature} do modelo não tem a entrada {name}; ela tem: {found}. Veja "
        "model_input_name em config.yaml.",
    },
    "model_no_output": {
        "en": "The model's signature {signature} has no output {name}; it has: {found}. See model_output_name in "
        "config.yaml.",
        "pt": "A assinatura {signature} do modelo não tem a saída {name}; ela tem: {found}. Veja "
        "model_output_name em config.yaml.",
    },
    "model_input_type": {
        "en": "The model's input {name} is of type {type}, and float32 or uint8 is wanted. Import it with 'python"
        " run.py import'.",
        "pt": "A entrada {name} do modelo é do tipo {type}, e float32 ou uint8 é esperado. Importe-o com 'python "
        "run.py import'.",
    },
    "model_input_shape": {
        "en": "The model takes {takes}, and its recipe makes {makes}. Import it with 'python run.py import', or "
        "mend the recipe's size.",
        "pt": "O modelo recebe {takes}, e a sua receita produz {makes}. Importe-o com 'python run.py import', ou "
        "corrija o tamanho na receita.",
    },
    "model_labels": {
        "en": "The model answers {values} values, and its recipe has {labels} labels. Import it again with its "
        "own labels: 'python run.py import PATH --labels FILE'.",
        "pt": "O modelo responde {values} valores, e a sua receita tem {labels} rótulos. Importe-o de novo com os"
        " rótulos dele: 'python run.py import PATH --labels FILE'.",
    },
    "model_one_value": {
        "en": "The model answers one value, and its recipe has {labels} labels: it ends in a sigmoid. 'python "
        "run.py import' makes two probabilities of it.",
        "pt": "O modelo responde um valor, e a sua receita tem {labels} rótulos: ele termina em uma sigmoide. "
        "'python run.py import' faz dele duas probabilidades.",
    },
    "model_distribution": {
        "en": "The model's answer is no distribution of probabilities (from {low} to {high}, in all {total}): are"
        " they logits? 'python run.py import' adds the softmax.",
        "pt": "A resposta do modelo não é uma distribuição de probabilidades (de {low} a {high}, ao todo "
        "{total}): são logits? 'python run.py import' acrescenta a softmax.",
    },
    "model_domain_score": {
        "en": "The model's output domain_score is {score}, and 0 to 1 is wanted.",
        "pt": "A saída domain_score do modelo é {score}, e 0 a 1 é esperado.",
    },
    "model_output_type": {
        "en": "The model's output {name} is missing or is not of float32.",
        "pt": "A saída {name} do modelo está faltando ou não é float32.",
    },
    "model_output_size": {
        "en": "The model's output {name} has {values} values, and {wanted} are wanted.",
        "pt": "A saída {name} do modelo tem {values} valores, e {wanted} são esperados.",
    },
    "model_golden": {
        "en": "Version {version} of the model does not answer its own sample photos as it should: {findings}.",
        "pt": "A versão {version} do modelo não responde às próprias fotos de exemplo como deveria: {findings}.",
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
        "en": "The model server has no model {name}. Give MODEL_NAME, or experiment_id in config.yaml, the name "
        "that it serves.",
        "pt": "O servidor do modelo não tem o modelo {name}. Defina MODEL_NAME, ou experiment_id em config.yaml, "
        "com o nome que ele serve.",
    },
    "model_other": {
        "en": "The model server has no model {name}; it serves {found}. Give both services the same MODEL_NAME.",
        "pt": "O servidor do modelo não tem o modelo {name}; ele serve {found}. Dê aos dois serviços o mesmo "
        "MODEL_NAME.",
    },
    "model_changes": {
        "en": "The version of the model changes right now. Try again in a moment.",
        "pt": "A versão do modelo está mudando agora. Tente de novo em instantes.",
    },
}
