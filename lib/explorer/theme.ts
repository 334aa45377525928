/** Dark or light: as the machine has it, or as was chosen. */
import { button } from "./dom.ts";

const themes = ["auto", "dark", "light"];
const key = "twobp-explorer-theme";

/** The switch. */
export function makeTheme(): HTMLButtonElement {
  let theme = themes[0];
  try {
    theme = themes.find((each) => each === localStorage.getItem(key)) ?? theme;
  } catch {
    // A browser may keep nothing of pages from files.
  }
  const made = button("", "Dark, light, or as the machine has it", () => {
    theme = themes[(themes.indexOf(theme) + 1) % themes.length];
    try {
      localStorage.setItem(key, theme);
    } catch {
      // Then it holds until the page is closed.
    }
    show();
  });
  made.id = "theme";
  const show = () => {
    document.documentElement.dataset.theme = theme;
    made.textContent = `Colours: ${theme}`;
  };
  show();
  return made;
}
