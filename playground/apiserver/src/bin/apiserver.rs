//! Serves the Kubernetes API on loopback and prints a kubeconfig: `apiserver [ADDRESS] > kubeconfig`.

use std::process::ExitCode;

#[tokio::main]
async fn main() -> ExitCode {
    let mut config = apiserver::Config::default();
    if let Some(address) = std::env::args().nth(1) {
        match address.parse() {
            Ok(address) => config.address = address,
            Err(error) => {
                eprintln!("{address} is not an address ({error}); give one as 127.0.0.1:6443");
                return ExitCode::from(2);
            }
        }
    }
    match apiserver::Server::start(config).await {
        Ok(server) => {
            println!("{}", server.kubeconfig());
            eprintln!("serving on {}; Ctrl-C ends it", server.url());
            // Without a signal handler the process is ended by the signal itself.
            let _ = tokio::signal::ctrl_c().await;
            server.shutdown().await;
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}
