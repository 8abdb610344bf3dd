"""Details: the text and the example that /help NAME shows for each command."""

DETAILS = {
    "retry": (
        "Generates another answer to the last question, or to question N; with xK, K answers. "
        "Earlier answers stay as variants.", "/retry x3"),
    "continue": (
        "Continues an answer that Ctrl-C, --max-tokens or the end of the window cut off.",
        "/continue"),
    "undo": (
        "Goes back one turn, or N turns. The log keeps them; /branches takes you back there.",
        "/undo 2"),
    "edit": (
        "Puts question N back into the input line; the old one stays in its branch. "
        "answer opens the last answer in $VISUAL or $EDITOR.", "/edit answer"),
    "copy": (
        "Copies the last answer to the clipboard, the Nth from the end, or with code the last "
        "code block.", "/copy code"),
    "read": (
        "Begins the next message with @FILE, which attaches a UTF-8 text file. "
        "A pattern attaches several.", "/read notes.txt"),
    "history": (
        "Lists question and answer of each turn, with its marks (pinned, forgotten, out of the "
        "window). With N, prints turn N whole.", "/history 2"),
    "branch": (
        "Goes back to the end of turn N, so that your next question starts a new branch there.",
        "/branch 1"),
    "branches": (
        "Lists every branch by its last turn; * marks where you are. "
        "With K, switches to branch K.", "/branches 2"),
    "pin": (
        "Keeps turn N in the context window when older turns leave it. The same command again "
        "unpins it.", "/pin 1"),
    "forget": (
        "Removes turn N from what the model sees; the log keeps it. The same command again "
        "brings it back.", "/forget 3"),
    "context": (
        "Shows how many tokens of the context window the system text, the turns and the answer "
        "use.", "/context"),
    "clear": (
        "Starts a new conversation with the same model and settings. The log keeps the old one as "
        "a branch.", "/clear"),
    "set": (
        "Lists all settings with value, source and default. With NAME, shows one; with VALUE, "
        "changes it from the next answer on; reset undoes the change.", "/set temp 0.5"),
    "system": (
        "Shows the system text. With TEXT or @FILE, replaces it; none removes it.",
        "/system Answer in one sentence."),
    "persona": (
        "Lists the personas of config.toml. With NAME, applies its settings and its system text; "
        "none removes it.", "/persona editor"),
    "think": (
        "on and off switch thinking; show and hide say whether you see it; low, medium and high "
        "set the effort; a number limits the tokens.", "/think 500"),
    "model": (
        "Lists the models on this computer. With NAME, loads that one and keeps the conversation.",
        "/model smollm2-135m"),
    "tokens": (
        "Shows the prompt of the last answer token by token, special tokens included.",
        "/tokens"),
    "probs": (
        "Colours the last answer by the probability of each token. With N, lists the "
        "alternatives at token N.", "/probs 12"),
    "fork": (
        "Keeps the last answer up to token N, takes alternative K of /probs N there, and "
        "generates the rest.", "/fork 12 2"),
    "why": (
        "Leaves out the system text, each earlier turn and each sentence of the question, then the "
        "sentences of the part that counted most, and measures how much less likely the same "
        "answer becomes. lcp look without does it for a text.", "/why"),
    "stats": (
        "Lists tokens, speed and times of the last answer, and the totals of this chat.", "/stats"),
    "save": (
        "Names this chat, for /open and lcp chat --resume. Without NAME, shows its id and name.",
        "/save trip"),
    "sessions": (
        "Lists the saved chats, the last used first. With words or \"phrases\", lists those that "
        "contain all of them.", "/sessions blue sky"),
    "open": (
        "Saves this chat and continues another one, with its model and its settings.",
        "/open trip"),
    "export": (
        "Writes the current branch to a new file: Markdown, an HTML page or JSON, by the ending "
        "of its name.", "/export chat.html"),
    "export!": ("Like /export, but replaces an existing file.", "/export! chat.md"),
    "help": (
        "Lists the commands. With NAME, explains one; /help keys lists the keys of the input "
        "line.", "/help retry"),
    "doctor": (
        "Checks CPU, memory, GPU, folders and models, and says how to fix problems.",
        "/doctor"),
    "exit": ("Saves the chat with its KV cache and leaves lcp.", "/exit"),
}  # fmt: skip
