/** Who is signed in. Without anybody: the sign-in page. */
import type { Session as SignedIn, SupabaseClient } from "@supabase/supabase-js";
import { useEffect, useMemo, useRef, useState } from "preact/hooks";
import { Shell } from "../app/shell.tsx";
import type { Config } from "../app/config.ts";
import { Proxy } from "../data/proxy.ts";
import { Dialog } from "../ui/dialog.tsx";
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
  /** Set by the account menu: somebody who leaves on purpose leaves nothing behind. */
  const leaving = useRef(false);
  const proxy = useMemo(() => new Proxy(config.proxyUrl, supabase), [config.proxyUrl, supabase]);

  useEffect(() => {
    const { data } = supabase.auth.onAuthStateChange((event, next) => {
      if (event === "SIGNED_OUT" && last.current && !leaving.current) {
        setEnded(last.current);
        return;
      }
      leaving.current = false;
      last.current = next;
      setEnded(null);
      // A renewed token is no other user: what depends on the user stays as it is.
      setSession((old) => (old && next && old.user.id === next.user.id ? old : next));
    });
    return () => data.subscription.unsubscribe();
  }, [supabase]);

  if (session === undefined) return null;
  if (!session) return <SignInPage supabase={supabase} />;
  const signOut = () => {
    leaving.current = true;
    // Here only; other devices stay signed in.
    void supabase.auth.signOut({ scope: "local" });
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

function SignInPage({ supabase }: { supabase: SupabaseClient }) {
  return (
    <main class="alone">
      <h1>Sign in</h1>
      <p class="muted">See what your hubs measure, and be told when something is wrong.</p>
      <SignInForm supabase={supabase} email="" />
    </main>
  );
}
