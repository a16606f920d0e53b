/** Who is signed in. Without anybody: the sign-in page. */
import type { Session as SignedIn, SupabaseClient } from "@supabase/supabase-js";
import { useEffect, useMemo, useRef, useState } from "preact/hooks";
import { Shell } from "../app/shell.tsx";
import type { Config } from "../app/config.ts";
import { Proxy, type Refused } from "../data/proxy.ts";
import { Dialog } from "../ui/dialog.tsx";
import { sentence } from "../ui/states.tsx";
import { hasLeft, leave } from "./leaving.ts";
import { SignInForm } from "./sign-in.tsx";

interface Props {
  config: Config;
  supabase: SupabaseClient;
}

export function Session({ config, supabase }: Props) {
  const [session, setSession] = useState<SignedIn | null | undefined>(undefined);
  /** Who was signed in when the session ended by itself: their work stays on the page, under the dialog. */
  const [ended, setEnded] = useState<SignedIn | null>(null);
  const last = useRef<SignedIn | null>(null);
  /** Since when `last` is signed in here (ms). */
  const since = useRef(0);
  /** Why Supabase could not be told that the last one has left. */
  const [untold, setUntold] = useState<Refused | null>(null);
  const user = session?.user.id ?? "";
  const proxy = useMemo(() => new Proxy(config.proxyUrl, supabase, user), [config.proxyUrl, supabase, user]);

  const become = (next: SignedIn | null) => {
    if (next?.user.id !== last.current?.user.id) since.current = Date.now();
    last.current = next;
    setEnded(null);
    if (next) setUntold(null);
    // A renewed token is no other user: what depends on the user stays as it is.
    setSession((old) => (old && next && old.user.id === next.user.id ? old : next));
  };

  useEffect(() => {
    const isGone = () => last.current !== null && hasLeft(last.current.user.id, since.current);
    const { data } = supabase.auth.onAuthStateChange((event, next) => {
      if (event === "SIGNED_OUT" && last.current && !isGone()) setEnded(last.current);
      else become(next);
    });
    // A tab that slept may have missed it.
    const look = () => isGone() && become(null);
    addEventListener("storage", look);
    document.addEventListener("visibilitychange", look);
    return () => {
      data.subscription.unsubscribe();
      removeEventListener("storage", look);
      document.removeEventListener("visibilitychange", look);
    };
  }, [supabase]);

  if (session === undefined) return null;
  if (!session) return <SignInPage supabase={supabase} untold={untold} />;
  const signOut = () => {
    // With the newest token, which the state does not have.
    const gone = last.current ?? session;
    become(null);
    // Somebody else may have signed in meanwhile.
    void leave(supabase, gone).then((failure) => last.current ?? setUntold(failure));
  };
  return (
    <>
      <Shell key={session.user.id} config={config} supabase={supabase} proxy={proxy} email={session.user.email ?? ""} onSignOut={signOut} />
      {ended && (
        <Dialog title="Your session has ended">
          <p>Sign in again to go on. What you were writing is still here.</p>
          <SignInForm supabase={supabase} email={ended.user.email ?? ""} />
        </Dialog>
      )}
    </>
  );
}

function SignInPage({ supabase, untold }: { supabase: SupabaseClient; untold: Refused | null }) {
  return (
    <main class="alone">
      <h1>Sign in</h1>
      <p class="muted">See what your hubs measure, and be told when something is wrong.</p>
      {untold && <p class="field-error" role="alert">You are signed out here. Supabase could not be told, so the session goes on there until it ends. {sentence(untold.reason)}</p>}
      <SignInForm supabase={supabase} email="" />
    </main>
  );
}
