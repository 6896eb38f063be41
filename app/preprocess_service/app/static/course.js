// Adds a button to each block of code of the course, which copies it. Without this script a page lacks only these.

const WORDS = {
  en: { copy: "Copy", copied: "Copied", selected: "Selected: press Ctrl+C" },
  "pt-BR": { copy: "Copiar", copied: "Copiado", selected: "Selecionado: aperte Ctrl+C" },
};
const SHOWN_MS = 2500;

const words = WORDS[document.documentElement.lang];

async function copy(code, button, said) {
  let done = "copied";
  try {
    await navigator.clipboard.writeText(code.textContent);
  } catch {
    // The browser refuses, or the page came over plain HTTP from another machine.
    getSelection().selectAllChildren(code);
    done = "selected";
  }
  button.textContent = said.textContent = words[done];
  setTimeout(() => {
    button.textContent = words.copy;
    said.textContent = "";
  }, SHOWN_MS);
}

for (const block of document.querySelectorAll(".listing")) {
  const button = document.createElement("button");
  button.type = "button";
  button.textContent = words.copy;
  // A screen reader says what changes in here.
  const said = document.createElement("span");
  said.className = "unseen";
  said.setAttribute("role", "status");
  button.addEventListener("click", () => copy(block.querySelector("code"), button, said));
  block.append(button, said);
}
