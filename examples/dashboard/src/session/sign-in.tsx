import type { SupabaseClient } from "@supabase/supabase-js";
import { useState } from "preact/hooks";
import { refused } from "../data/load.ts";
import { Refused } from "../data/proxy.ts";
import { sentence } from "../ui/states.tsx";

export function SignInForm({ supabase, email }: { supabase: SupabaseClient; email: string }) {
  const [busy, setBusy] = useState(false);
  const [error, setError] = useState<Refused | null>(null);
  const submit = async (event: SubmitEvent) => {
    event.preventDefault();
    const form = new FormData(event.currentTarget as HTMLFormElement);
    setBusy(true);
    setError(null);
    const credentials = { email: String(form.get("email")).trim(), password: String(form.get("password")) };
    try {
      const answer = await supabase.auth.signInWithPassword(credentials);
      if (answer.error) setError(answer.error.status ? new Refused(answer.error.status, answer.error.message) : refused(answer.error));
    } catch (thrown) {
      setError(refused(thrown));
    }
    setBusy(false);
  };
  return (
    <form class="stack" onSubmit={submit}>
      <label>
        E-mail
        <input name="email" type="email" autocomplete="username" required defaultValue={email} />
      </label>
      <label>
        Password
        <input name="password" type="password" autocomplete="current-password" required />
      </label>
      {error && <p class="field-error" role="alert">{sentence(error.reason)}</p>}
      <button type="submit" class="primary" disabled={busy}>{busy ? "Signing in" : "Sign in"}</button>
    </form>
  );
}
