"""The texts of the OpenAPI document in Brazilian Portuguese, by the English text that the code has in place.

If an English text changes, its Portuguese one must be written anew; a test fails until then.
"""

PORTUGUESE = {
    # The whole.
    "CAT or DOG": "CAT ou DOG",
    "Classifies a photo: the answer is CAT or DOG.": "Classifica uma foto: a resposta é CAT (gato) ou DOG (cachorro).",
    "Classifies a photo: the answer is the label of what it shows.": "Classifica uma foto: a resposta é o rótulo do "
    "que ela mostra.",
    "An API key of this service.": "Uma chave de API deste serviço.",
    "The same key, in this header.": "A mesma chave, neste cabeçalho.",
    # Routes.
    "Classify a photo": "Classificar uma foto",
    "Classify a photo: the course's path": "Classificar uma foto: o caminho do curso",
    "Classify a photo with one of the models": "Classificar uma foto com um dos modelos",
    "Classify a photo. It is sent as JSON with base64, as the file itself, or as a form.": "Classifica uma foto. Ela "
    "é enviada como JSON com base64, como o próprio arquivo ou como formulário.",
    "Classify several photos": "Classificar várias fotos",
    "Classify several photos with one of the models": "Classificar várias fotos com um dos modelos",
    "Classify several photos. Each has its own result: a broken photo does not affect the others.": "Classifica "
    "várias fotos. Cada uma tem o seu próprio resultado: uma foto corrompida não afeta as outras.",
    "List the models": "Listar os modelos",
    "List all models, the one that answers `/predict` first, each with its version in use.": "Lista todos os modelos, "
    "cada um com a sua versão em uso. O primeiro é o que responde a `/predict`.",
    "Describe the model in use": "Descrever o modelo em uso",
    "Describe one of the models": "Descrever um dos modelos",
    "Describe the model in use: name, version, labels, signature and preprocessing.": "Descreve o modelo em uso: "
    "nome, versão, rótulos, assinatura e pré-processamento.",
    "Get a golden photo of the model in use": "Obter uma foto de referência do modelo em uso",
    "Get a golden photo of one of the models": "Obter uma foto de referência de um dos modelos",
    "Return a golden photo of the version in use: a photo whose answer is known.": "Devolve uma foto de referência da "
    "versão em uso: uma foto cuja resposta é conhecida.",
    "Whether the process runs": "Saber se o processo está rodando",
    "Answer whether this process runs. It does not check the model server, which a restart would not "
    "repair.": "Informa se este processo está rodando. Não verifica o servidor do modelo, que não voltaria a "
    "funcionar se este processo fosse reiniciado.",
    "Whether a photo would be answered now": "Saber se uma foto teria resposta agora",
    "Answer whether a photo would be answered now. It asks the model server for its state and for a "
    "prediction.": "Informa se uma foto teria resposta agora. Pede ao servidor do modelo o seu estado e uma previsão.",
    # Parameters and headers.
    "One of the models.": "Um dos modelos.",
    "The photo's name: one of `golden` in the answer of `/model`.": "O nome da foto: um dos que estão em `golden`, na "
    "resposta de `/model`.",
    "Language of `msg`: en or pt.": "Idioma de `msg`: en ou pt.",
    "The request's id in the answer and in the logs: the client's own if it has 1 to 128 letters, digits, `.`, `_` "
    "and `-`; else a new one.": "O id da requisição, na resposta e nos logs: o do próprio cliente, se ele tiver de 1 "
    "a 128 letras, dígitos, `.`, `_` e `-`; senão, um novo.",
    "How many labels `probabilities` has, the most probable first.": "Quantos rótulos `probabilities` tem, a partir "
    "do mais provável.",
    "How many labels `probabilities` has, the most probable first. A JSON body may set it too.": "Quantos rótulos "
    "`probabilities` tem, a partir do mais provável. Um corpo JSON também pode definir isso.",
    "Whether the answer has an `explanation`: where the model looked.": "Se a resposta tem uma `explanation`: para "
    "onde o modelo olhou.",
    "Whether the answer has an `explanation`: where the model looked. A JSON body may set it too.": "Se a resposta "
    "tem uma `explanation`: para onde o modelo olhou. Um corpo JSON também pode definir isso.",
    "Deadline in milliseconds. It can only shorten the service's own deadline.": "Prazo em milissegundos. Só pode "
    "encurtar o prazo do próprio serviço.",
    "Milliseconds that each stage took, and the total.": "Quantos milissegundos cada etapa levou, e o total.",
    "The language of the texts in the answer.": "O idioma dos textos da resposta.",
    "Seconds to wait before the next try.": "Quantos segundos esperar antes da próxima tentativa.",
    # Bodies of requests.
    "A photo.": "Uma foto.",
    "Several photos.": "Várias fotos.",
    "Several pictures.": "Várias imagens.",
    "The picture's bytes in base64, or a `data:` URL.": "Os bytes da imagem em base64, ou uma URL `data:`.",
    "Text as in `/predict`. For any other value the answer has an error at its place.": "Texto como em `/predict`. "
    "Para qualquer outro valor, a resposta tem um erro no lugar dele.",
    # Answers.
    "Successful Response": "Resposta bem-sucedida",
    "The photo.": "A foto.",
    "Not ready; `failing` says why.": "Não está pronto; `failing` diz o motivo.",
    "There is an answer.": "Há uma resposta.",
    "There is no prediction.": "Não há previsão.",
    "The prediction for a photo.": "A previsão para uma foto.",
    "The most probable label.": "O rótulo mais provável.",
    "The label's probability, 0 to 1.": "A probabilidade do rótulo, de 0 a 1.",
    "The same as `label`: the name in the course.": "O mesmo que `label`: o nome usado no curso.",
    "`confidence` in percent.": "`confidence` em porcentagem.",
    "The `top_k` most probable labels (default 5) with their probabilities, 0 to 1, the largest first.": "Os `top_k` "
    "rótulos mais prováveis (por padrão, 5) com as suas probabilidades, de 0 a 1, a partir da maior.",
    "False: the photo is probably of nothing that the model knows. Absent if the model can't tell.": "False: a foto "
    "provavelmente não mostra nada que o modelo conheça. Ausente se o modelo não sabe dizer.",
    "How certain the model is that the photo shows something that it knows, 0 to 1.": "O grau de certeza do modelo de "
    "que a foto mostra algo que ele conhece, de 0 a 1.",
    "How often the photo was looked at. 2: the model was not sure, so it looked a second time where it sees what it "
    "knows.": "Quantas vezes o modelo olhou a foto. 2: ele não tinha certeza, por isso olhou de novo o lugar onde vê "
    "o que conhece.",
    "Where the model looked.": "Para onde o modelo olhou.",
    "Where the model looked; only if `explain` asks for it.": "Para onde o modelo olhou; só se `explain` pedir.",
    "The model that answered.": "O modelo que respondeu.",
    "The same as in the header X-Request-ID.": "O mesmo que no cabeçalho X-Request-ID.",
    "A prediction or an error for each photo, in the order of the request.": "Uma previsão ou um erro para cada foto, "
    "na ordem da requisição.",
    "The batch was read; each photo has a status of its own.": "O lote foi lido; cada foto tem o seu próprio status.",
    "One for each photo.": "Uma para cada foto.",
    "An error.": "Um erro.",
    "The cause and what to do, in the language of Accept-Language (en, pt).": "A causa e o que fazer, no idioma de "
    "Accept-Language (en, pt).",
    "The error's code for programs.": "O código do erro, para programas.",
    # Where the model looked.
    "How much each place looks like what the model knows, 0 to 1, where 1 is the most in this photo; row by row, the "
    "top one first. It has at most 32 rows and columns.": "O quanto cada lugar se parece com o que o modelo conhece, "
    "de 0 a 1, em que 1 é o máximo desta foto; linha por linha, a partir da de cima. Tem no máximo 32 linhas e "
    "colunas.",
    "The same as a small PNG to lay over `region`: a `data:` URL. It is transparent where the values are low.": "O "
    "mesmo, como um pequeno PNG para sobrepor a `region`: uma URL `data:`. É transparente onde os valores são baixos.",
    "The width of the upright photo, divided by its height.": "A largura da foto na orientação certa, dividida pela "
    "altura.",
    "The part of the photo that the first look shows, and that `attention` covers. If the model's input is padded, it "
    "is larger than the photo.": "A parte da foto que a primeira olhada mostra, e que `attention` cobre. Se a entrada "
    "do modelo é preenchida nas bordas, ela é maior que a foto.",
    "The part of the photo that the second look shows. Absent if there was only one look.": "A parte da foto que a "
    "segunda olhada mostra. Ausente se houve uma só olhada.",
    "A part of the upright photo, as shares of its width and height: 0 is the left or top edge, 1 the other "
    "one.": "Uma parte da foto na orientação certa, em frações da largura e da altura: 0 é a borda esquerda ou a de "
    "cima, 1 é a oposta.",
    "The left edge.": "A borda esquerda.",
    "The top edge.": "A borda de cima.",
    "The right edge.": "A borda direita.",
    "The bottom edge.": "A borda de baixo.",
    # Health.
    "The result of each check by its name.": "O resultado de cada verificação, pelo nome dela.",
    "The names of the checks that passed.": "Os nomes das verificações que passaram.",
    "The name of each failed check, with the reason.": "O nome de cada verificação que falhou, com o motivo.",
    "Problems although photos are answered: why a newer version is not used.": "Problemas que não impedem as "
    "respostas: por que uma versão mais nova não é usada.",
    # The models.
    "The models that this service serves.": "Os modelos que este serviço serve.",
    "The first one answers `/predict`.": "O primeiro responde a `/predict`.",
    "A model that this service serves.": "Um modelo que este serviço serve.",
    "Its name in `/models/NAME/predict`.": "O nome dele em `/models/NAME/predict`.",
    "The version in use; absent if there is none.": "A versão em uso; ausente se não há nenhuma.",
    "Why no version is in use, in the language of Accept-Language.": "Por que nenhuma versão está em uso, no idioma "
    "de Accept-Language.",
    "The model in use, with its inputs and outputs.": "O modelo em uso, com as suas entradas e saídas.",
    "The model's folder in `prev_trained_models`.": "A pasta do modelo em `prev_trained_models`.",
    "The version's folder in the model's folder.": "A pasta da versão, dentro da pasta do modelo.",
    "The version in use.": "A versão em uso.",
    "In the order of the model's output.": "Na ordem da saída do modelo.",
    "The signature that is called.": "A assinatura que é chamada.",
    "The name of the signature's input.": "O nome da entrada da assinatura.",
    "Height, width, channels.": "Altura, largura, canais.",
    "The name of the signature's output.": "O nome da saída da assinatura.",
    "With a lower `domain_score`, `in_domain` is false; null if the model has no such output.": "Com um "
    "`domain_score` menor, `in_domain` é false; null se o modelo não tem essa saída.",
    "Whether the model tells where it looked: whether `explain` has an answer.": "Se o modelo diz para onde olhou, "
    "isto é, se `explain` tem resposta.",
    "The names of the version's golden photos, for `/model/golden/NAME`, without generated ones.": "Os nomes das "
    "fotos de referência da versão, para `/model/golden/NAME`, sem as que foram geradas.",
    # Preprocessing.
    "How a photo becomes the model's input.": "Como uma foto se torna a entrada do modelo.",
    "How a photo becomes the model's input. docs/models.md explains each field.": "Como uma foto se torna a entrada "
    "do modelo. docs/models.md explica cada campo.",
    "The width of the model's input in pixels.": "A largura da entrada do modelo, em pixels.",
    "The height of the model's input in pixels.": "A altura da entrada do modelo, em pixels.",
    "How the photo gets the input's aspect ratio: `crop`, `stretch`, `pad` or `shortest_edge`.": "Como a foto fica "
    "com a proporção da entrada: `crop`, `stretch`, `pad` ou `shortest_edge`.",
    "For the mode `crop`: the part of the centre that is kept.": "Para o modo `crop`: a parte do centro que é mantida.",
    "For the mode `shortest_edge`: the shorter side in pixels.": "Para o modo `shortest_edge`: o lado menor, em "
    "pixels.",
    "The filter that resizes the photo.": "O filtro que redimensiona a foto.",
    "Whether the filter is widened when the photo is reduced.": "Se o filtro é alargado quando a foto é reduzida.",
    "Whether the photo is first converted to grey.": "Se a foto é antes convertida em tons de cinza.",
    "`fast`: large photos may be decoded at a reduced scale.": "`fast`: fotos grandes podem ser decodificadas em "
    "escala reduzida.",
    "For float32 inputs: pixel * scale + offset, per channel.": "Para entradas float32: pixel * scale + offset, por "
    "canal.",
    "What is added after `scale`, per channel.": "O que é somado depois de `scale`, por canal.",
    # The second look.
    "When a photo is looked at a second time, and how both looks become one answer; null if none is.": "Quando o "
    "modelo olha uma foto pela segunda vez, e como as duas olhadas se tornam uma resposta; null se isso nunca "
    "acontece.",
    "When a photo is looked at a second time, where, and how both looks become one answer.": "Quando o modelo olha "
    "uma foto pela segunda vez, onde, e como as duas olhadas se tornam uma resposta.",
    "A second look is taken if the confidence of the first one is lower.": "Há uma segunda olhada se a confiança da "
    "primeira é menor.",
    "No second look is taken if the `domain_score` of the first one is lower. Without `domain_score` it has no "
    "effect.": "Não há segunda olhada se o `domain_score` da primeira é menor. Sem `domain_score`, não tem efeito.",
    "The box is drawn around the places above this share of the attention's maximum.": "O retângulo é traçado em "
    "volta dos lugares acima desta fração do máximo da atenção.",
    "The sides of the box are at least this share of the sides of the model's input.": "Os lados do retângulo têm ao "
    "menos esta fração dos lados da entrada do modelo.",
    "Of the second look's log probabilities. Those of the first look have the rest, `1 - weight`.": "O peso dos "
    "logaritmos das probabilidades da segunda olhada. Os da primeira têm o restante, `1 - weight`.",
    "The sum is divided by it before the softmax. It calibrates the confidence.": "A soma é dividida por este valor "
    "antes da softmax. Ele calibra a confiança.",
}
