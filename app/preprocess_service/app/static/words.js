// Everything that the page says, in each language that it speaks.

const EN = {
  title: "Cat or dog?",
  skip: "Go to the answers",
  navigation: "Page",
  docs: "API",
  lead: "Show a photo: a small neural network says which one it is, how sure it is, and how long it took.",
  invite: "Drop photos here, or paste one",
  inviteFinger: "Choose photos, or take one",
  choose: "Choose photos",
  camera: "Use the camera",
  private: "They go to this service only, and it keeps none.",
  key: "This service asks for a key",
  useKey: "Use it",
  keyKept: "Whoever runs the service has one for you. It is forgotten when this tab is closed.",
  samples: "Or try one of these",
  cat_1: "Sample photo: a tabby cat",
  cat_2: "Sample photo: a cat lying upside down",
  dog_1: "Sample photo: a golden retriever",
  dog_2: "Sample photo: a small grey dog",
  model: "Model {name}, version {version}",
  modelAway: "The model is not ready. If the service has just been started, give it a moment.",
  answers: "Answers",
  clear: "Clear all",
  progress: "Photos answered",
  count_one: "{count} photo",
  count_other: "{count} photos",
  failed_one: "{count} failed",
  failed_other: "{count} failed",
  emptyTitle: "Nothing here yet",
  emptyText: "Each photo gets a card: the answer, how probable each label is, and where the time went.",
  cameraTitle: "Take a photo",
  close: "Close",
  video: "Picture of the camera",
  shutter: "Take the photo",
  cameraRefused:
    "The browser may not use the camera. Allow it in the site's settings, beside the address, and try again.",
  cameraMissing: "No camera was found. Connect one, or choose a photo instead.",
  cameraBusy: "The camera doesn't start. Does another program use it?",
  nothingDropped: "No file was in that. Save the picture first, then drop its file here.",
  nothingPasted: "There is no picture in the clipboard. Copy one, not its address, and paste again.",
  sampleAway: "The sample could not be loaded. Is the service still running?",
  waiting: "Waiting for its turn",
  looking: "Looking",
  preview: "Preview of {name}",
  noPreview: "This browser has no preview of it.",
  remove: "Remove {name}",
  retry: "Try again",
  save: "Save the photo",
  probabilities: "Probabilities",
  more_one: "Show {count} more label of {total}",
  more_other: "Show {count} more labels of {total}",
  labels: "It knows {labels}.",
  labelsMore: "It knows {labels} and {more} more.",
  sample: "Sample photo {name}",
  neither: "This may be neither a cat nor a dog.",
  CAT: "Cat",
  DOG: "Dog",
  time: "Time",
  total: "{time} there and back",
  read: "read",
  decode: "decode",
  resize: "resize",
  predict: "model",
  other: "other",
  network: "network",
  readHelp: "taking in the file",
  decodeHelp: "from the file to pixels",
  resizeHelp: "to the size and range that the model wants",
  predictHelp: "the neural network's answer",
  otherHelp: "everything else in the service",
  networkHelp: "the way there and back, and this browser",
  copyAs: "Copy as",
  copied: "Copied. Run it in the folder of the photo.",
  copiedSample: "Copied. It runs anywhere.",
  copiedUnsaved: "Copied. Save the photo first, and run it in that folder.",
  notCopied: "The browser did not let it be copied: select it and press Ctrl+C.",
  code: "The same request in {language}",
  failed: "No answer",
  unreachable: "The service can't be reached. Is it still running, and are you online?",
  interrupted: "The connection broke while the photo was sent. It has {size}: perhaps more than the service takes.",
  unreadable:
    "The browser can't read this file. If it is a folder, drop the photos in it; if it was moved, choose it anew.",
  late: "No answer came within {seconds} seconds.",
  wordless: "The service answered with status {status} and no explanation.",
  nonsense: "The service answered something that this page doesn't understand. Is it of the same version?",
  wait_one: "Try again in {count} second.",
  wait_other: "Try again in {count} seconds.",
  request: "request {id}",
};

const PT = {
  title: "Gato ou cachorro?",
  skip: "Ir para as respostas",
  navigation: "Página",
  docs: "API",
  lead: "Mostre uma foto: uma pequena rede neural diz qual dos dois é, com quanta certeza e em quanto tempo.",
  invite: "Solte fotos aqui ou cole uma",
  inviteFinger: "Escolha fotos ou tire uma",
  choose: "Escolher fotos",
  camera: "Usar a câmera",
  private: "Elas vão somente para este serviço, que não guarda nenhuma.",
  key: "Este serviço pede uma chave",
  useKey: "Usar",
  keyKept: "Quem mantém o serviço tem uma para você. Ela é esquecida quando esta aba é fechada.",
  samples: "Ou experimente uma destas",
  cat_1: "Foto de exemplo: um gato malhado",
  cat_2: "Foto de exemplo: um gato deitado de cabeça para baixo",
  dog_1: "Foto de exemplo: um golden retriever",
  dog_2: "Foto de exemplo: um cachorrinho cinza",
  model: "Modelo {name}, versão {version}",
  modelAway: "O modelo não está pronto. Se o serviço acabou de iniciar, espere um instante.",
  answers: "Respostas",
  clear: "Limpar tudo",
  progress: "Fotos respondidas",
  count_one: "{count} foto",
  count_other: "{count} fotos",
  failed_one: "{count} falhou",
  failed_other: "{count} falharam",
  emptyTitle: "Nada aqui ainda",
  emptyText: "Cada foto ganha um cartão: a resposta, a probabilidade de cada rótulo e para onde foi o tempo.",
  cameraTitle: "Tirar uma foto",
  close: "Fechar",
  video: "Imagem da câmera",
  shutter: "Tirar a foto",
  cameraRefused:
    "O navegador não pode usar a câmera. Permita nas configurações do site, ao lado do endereço, e tente de novo.",
  cameraMissing: "Nenhuma câmera foi encontrada. Conecte uma ou escolha uma foto.",
  cameraBusy: "A câmera não inicia. Outro programa a está usando?",
  nothingDropped: "Não havia nenhum arquivo nisso. Salve a imagem primeiro e solte o arquivo aqui.",
  nothingPasted: "Não há imagem na área de transferência. Copie uma imagem, não o endereço dela, e cole de novo.",
  sampleAway: "O exemplo não pôde ser carregado. O serviço ainda está no ar?",
  waiting: "Esperando a vez",
  looking: "Olhando",
  preview: "Prévia de {name}",
  noPreview: "Este navegador não mostra uma prévia.",
  remove: "Remover {name}",
  retry: "Tentar de novo",
  save: "Salvar a foto",
  probabilities: "Probabilidades",
  more_one: "Mostrar mais {count} rótulo de {total}",
  more_other: "Mostrar mais {count} rótulos de {total}",
  labels: "Ele conhece {labels}.",
  labelsMore: "Ele conhece {labels} e mais {more}.",
  sample: "Foto de exemplo {name}",
  neither: "Talvez não seja nem gato nem cachorro.",
  CAT: "Gato",
  DOG: "Cachorro",
  time: "Tempo",
  total: "{time} ida e volta",
  read: "ler",
  decode: "decodificar",
  resize: "ajustar",
  predict: "modelo",
  other: "outros",
  network: "rede",
  readHelp: "receber o arquivo",
  decodeHelp: "do arquivo aos pixels",
  resizeHelp: "para o tamanho e a faixa que o modelo quer",
  predictHelp: "a resposta da rede neural",
  otherHelp: "todo o resto no serviço",
  networkHelp: "a ida, a volta e este navegador",
  copyAs: "Copiar como",
  copied: "Copiado. Execute na pasta da foto.",
  copiedSample: "Copiado. Funciona em qualquer pasta.",
  copiedUnsaved: "Copiado. Salve a foto primeiro e execute na pasta dela.",
  notCopied: "O navegador não deixou copiar: selecione e aperte Ctrl+C.",
  code: "O mesmo pedido em {language}",
  failed: "Sem resposta",
  unreachable: "Não foi possível falar com o serviço. Ele ainda está no ar, e você está conectado?",
  interrupted: "A conexão caiu enquanto a foto era enviada. Ela tem {size}: talvez mais do que o serviço aceita.",
  unreadable:
    "O navegador não consegue ler este arquivo. Se for uma pasta, solte as fotos dela; se foi movido, escolha-o de novo.",
  late: "Nenhuma resposta veio em {seconds} segundos.",
  wordless: "O serviço respondeu com o status {status}, sem explicação.",
  nonsense: "O serviço respondeu algo que esta página não entende. Ele é da mesma versão?",
  wait_one: "Tente de novo em {count} segundo.",
  wait_other: "Tente de novo em {count} segundos.",
  request: "pedido {id}",
};

export const LANGUAGES = { en: EN, "pt-BR": PT };

// What the page says in place of the above for a model of one's own.
const NEUTRAL = {
  en: {
    title: "What is in the photo?",
    lead: "Show a photo: a neural network says what is in it, how sure it is, and how long it took.",
    neither: "This may be nothing that the model knows.",
  },
  "pt-BR": {
    title: "O que há na foto?",
    lead: "Mostre uma foto: uma rede neural diz o que há nela, com quanta certeza e em quanto tempo.",
    neither: "Talvez não seja nada que o modelo conheça.",
  },
};
// The model's name where the page is for another one than CAT-DOG, as the service wrote it into the page.
export const ownModel = globalThis.document?.documentElement.dataset.model;
const KEPT_AS = "language";

let current = remembered() ?? preferred();

// The language in use, as an HTML `lang`.
export const language = () => current;

// The language that the button offers.
export const otherLanguage = () => (current === "en" ? "pt-BR" : "en");

export function useLanguage(name) {
  current = name;
  try {
    localStorage.setItem(KEPT_AS, name);
  } catch {
    // A browser may forbid to keep anything; then the choice lasts until the page is closed.
  }
}

// The words for `key`, each {name} in them replaced.
export function say(key, values = {}) {
  const words = (ownModel !== undefined && NEUTRAL[current][key]) || LANGUAGES[current][key];
  return words.replace(/\{(\w+)\}/g, (_, name) => values[name]);
}

// The words for a number of things: `key_one` or `key_other`, as the language's grammar wants.
export function sayCount(key, count, values = {}) {
  const form = new Intl.PluralRules(current).select(count) === "one" ? "one" : "other";
  return say(`${key}_${form}`, { ...values, count: number(count) });
}

// A model of one's own may have other labels; they are shown as they are.
export const sayLabel = (label) => (label === "CAT" || label === "DOG" ? say(label) : label);

export function number(value, digits = 0) {
  return new Intl.NumberFormat(current, { minimumFractionDigits: digits, maximumFractionDigits: digits }).format(value);
}

// A probability from 0 to 1 in percent. Rounding must not make a sure thing of what is none.
export function percent(value) {
  if (value > 0 && value < 0.0001) return `< ${number(0.01, 2)} %`;
  if (value < 1 && value > 0.9999) return `> ${number(99.99, 2)} %`;
  return `${number(100 * value, 2)} %`;
}

export const milliseconds = (value) => `${number(value, value < 10 ? 1 : 0)} ms`;

export function size(bytes) {
  if (bytes < 1e3) return `${number(bytes)} B`;
  return bytes < 1e6 ? `${number(bytes / 1e3)} kB` : `${number(bytes / 1e6, 1)} MB`;
}

function remembered() {
  try {
    const name = localStorage.getItem(KEPT_AS);
    return Object.hasOwn(LANGUAGES, name ?? "") ? name : null;
  } catch {
    return null;
  }
}

function preferred() {
  const first = navigator.languages.find((tag) => /^(en|pt)\b/i.test(tag)) ?? "en";
  return /^pt\b/i.test(first) ? "pt-BR" : "en";
}
