// The key, where the service asks for one: kept until the tab is closed, and sent nowhere but to the service.

const KEPT_AS = "key";
const form = document.getElementById("key-form");
const field = document.getElementById("key");

let key = remembered();

export const currentKey = () => key;

// The headers that a request needs for it.
export const authorization = () => (key ? { Authorization: `Bearer ${key}` } : {});

// Show the field; `mayFocus` where the visitor has just asked for something that needs it.
export function askForKey(mayFocus) {
  form.hidden = false;
  if (mayFocus) field.focus();
}

// `onKey` is called when there is another one.
export function setUpKey(onKey) {
  form.addEventListener("submit", (event) => {
    event.preventDefault();
    key = field.value;
    field.value = "";
    form.hidden = true;
    remember(key);
    onKey();
  });
}

function remembered() {
  try {
    return sessionStorage.getItem(KEPT_AS) ?? "";
  } catch {
    return "";
  }
}

function remember(value) {
  try {
    sessionStorage.setItem(KEPT_AS, value);
  } catch {
    // A browser may forbid to keep anything; then it lasts until the page is loaded again.
  }
}
